#!/usr/bin/env bash
# Denoise with the published flags on one node: one rank per GPU, or two ranks on a CPU.
#
#   ./test_DDPM_3d_mpi.sh                          the demo's input with the demo's weights (run `make demo` first)
#   BASE_SAMPLES=subject.npz MODEL_PATH=model.pt ./test_DDPM_3d_mpi.sh --save_dir out
#
# Everything after the script's name is passed on to scripts/test.py and wins over what stands here.
[ -n "${BASH_VERSION:-}" ] || exec bash "$0" "$@" # for those who start it by sh
set -euo pipefail
# Its own folder, also through a link; batch systems run a copy from elsewhere, and name the folder it was submitted from.
HERE=$(cd "$(dirname "$(readlink -f "$0")")" && pwd)
for SUBMITTED in "${SLURM_SUBMIT_DIR:-}" "${PBS_O_WORKDIR:-}" "${LS_SUBCWD:-}" "${SGE_O_WORKDIR:-}"; do
  [ -f "$HERE/scripts/test.py" ] || HERE=${SUBMITTED:-$HERE}
done
if [ ! -f "$HERE/scripts/test.py" ]; then
  echo "error: $0 is a copy that does not find scripts/test.py: submit it from the repository's folder" >&2
  exit 2
fi

DEMO=$(echo "$HERE"/results/demo/trial/sub-*/low_dose_1-20.nii.gz)
# What follows the script's name may name the scans, or ask for help.
if [ -z "${BASE_SAMPLES:-}" ] && [ ! -e "$DEMO" ] && [[ ! " $* " =~ \ (--base|--?h) ]]; then
  echo "error: the demo's input is not there: run 'make demo', or set BASE_SAMPLES to a scan or a folder of them" >&2
  exit 2
fi
BASE_SAMPLES=${BASE_SAMPLES:-$DEMO}
MODEL_PATH=${MODEL_PATH:-$HERE/checkpoint/demo_ddpm3d.pt}
SAVE_DIR=${SAVE_DIR:-results/ddpm3d}
# Of the GPUs there are, those that this process may use: CUDA takes the names up to the first that is none. The list has
# further lines, for the instances of a GPU and for errors.
if [ -n "${CUDA_VISIBLE_DEVICES+set}" ]; then
  GPUS=$(awk -F, '{while ($(n + 1) ~ /^ *([0-9]+|(GPU|MIG)-.*) *$/) n++} END {print n + 0}' <<<"$CUDA_VISIBLE_DEVICES")
else
  GPUS=$(nvidia-smi --list-gpus 2>/dev/null | grep -cE '^GPU [0-9]+:' || true)
fi
RANKS=${RANKS:-$((GPUS > 0 ? GPUS : 2))}
if [[ ! $RANKS =~ ^0*[1-9][0-9]*$ ]]; then # for which MPICH's launcher starts a single one
  printf 'error: RANKS is %q: give a whole number of ranks, 1 or more\n' "$RANKS" >&2
  exit 2
fi

# The published network. A checkpoint with a header, like the demo's, knows its own and says which flags it ignores.
MODEL_FLAGS="--attention_resolutions 1000 --large_size 96 --small_size 96 --num_channels 128 --num_head_channels 64
  --learn_sigma True --resblock_updown True --use_scale_shift_norm True --use_fp16 True"

# Open MPI would bind each of two ranks to a single core; version 4 reads the first of these, version 5 the second.
export OMPI_MCA_hwloc_base_binding_policy=${OMPI_MCA_hwloc_base_binding_policy:-none}
export PRTE_MCA_hwloc_default_binding_policy=${PRTE_MCA_hwloc_default_binding_policy:-none}
export PATH="$HERE/.venv/bin:$PATH"
LAUNCHER=(mpiexec -n "$RANKS")
if ! command -v mpiexec >/dev/null; then
  echo "notice: there is no mpiexec: a single rank does all the work (pip install mpich, or load a module of MPI)" >&2
  LAUNCHER=()
fi
# shellcheck disable=SC2086
exec ${LAUNCHER[@]+"${LAUNCHER[@]}"} python "$HERE/scripts/test.py" $MODEL_FLAGS --batch_size 1 \
  --base_samples "$BASE_SAMPLES" --model_path "$MODEL_PATH" --save_dir "$SAVE_DIR" "$@"
