"""The one exception for mistakes that a user can mend."""


class InputError(Exception):
    """Bad input or usage: says on one line what is wrong, in which file, and what to do.

    Scripts that end with it have exit code 2.
    """
