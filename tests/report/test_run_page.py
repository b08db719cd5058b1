"""What stands in the page of a run, and what must not."""

import json
import re
import tracemalloc
from html.parser import HTMLParser

import numpy as np
import pytest

from guided_diffusion.errors import InputError
from guided_diffusion.pet import image_quality
from guided_diffusion.pet.foci import contrast_map, foci
from guided_diffusion.pet.grid import Volume
from guided_diffusion.report.facts import facts_of
from guided_diffusion.report.findings import find, peaks_near
from guided_diffusion.report.run_page import RunImages, write_run_page
from tests.report_runs import AFFINE, KEPT, LOST, NEW, SHAPE, VOXEL_MM, manifest, run


class Page(HTMLParser):
    """The elements of a page with their attributes, and its text outside scripts and styles."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.words, self._inside = [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self._inside = tag

    def handle_endtag(self, tag):  # noqa: ARG002
        self._inside = ""

    def handle_data(self, data):
        if self._inside not in ("script", "style"):
            self.words.append(data)

    @property
    def text(self):
        return re.sub(r"\s+", " ", " ".join(self.words))

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    images = run(realisations=3)
    path = tmp_path_factory.mktemp("page") / "report.html"
    places = [focus.voxel for focus in find(images.scan, images.denoised).before]
    peaks = np.arange(3)[:, None] + 5.0 + np.zeros(len(places))
    write_run_page(path, images, manifest(images, 3), peaks=peaks)
    return images, path.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(written):
    return Page(written[1])


def test_nothing_is_loaded_and_nothing_named(written, page):
    _, text = written
    for attributes in (attributes for _, attributes in page.elements):
        for name in ("src", "href"):
            assert attributes.get(name, "data:").startswith(("data:", "#"))
    assert not re.search(r"https?://|url\(|@import|fetch\(", text)
    assert "default-src 'none'" in text
    for secret in ("DOE", "JANE", "1950", "71.25", "/data/", "base_samples"):
        assert secret not in re.sub(r"[A-Za-z0-9+/=]{200,}", "", text), secret


def test_texts_from_outside_are_escaped(written, page):
    assert "<script>alert(1)" not in written[1]
    assert "<script>alert(1)</script>.pt" in page.text
    assert "<b>BQML</b>, decay from START" in page.text
    assert len(page.all("script")) == 2 + 4 + 6  # data, volumes, scripts


def test_facts(page):
    for fact in (
        "SUV per stored unit 0.0002 to 0.0003 (BQML)",
        "replaced header values injection_time, weight_kg",
        "44 x 40 x 60 of 4 x 5 x 3 mm",
        "fedcba987654",
        "sampler ddim, seed 10, realisations 3; precision bfloat16",
        "2 of 32 slices",
        "12.3 s with 2 rank(s), 1 thread(s) each, on cpu",
        "python 3.11.7",
        "Research use only",
        "standard deviation of 3 volumes",
    ):
        assert fact in page.text, fact
    assert re.search(r"\d+ voxels \(\d+\.\d mL\) above SUV 16, up to \d\d\.\d: kept from the input", page.text)


def uptake_above(voxels=1, above_cap="keep", linear=True):
    """What a page says of uptake above the largest SUV of weights with `linear_transfer`, or without."""
    images = run()
    told = manifest(images)
    told["input"]["above_suv_max"] = {"voxels": voxels, "peak": 90.0, "ml": 0.016}
    told["flags"]["above_cap"] = above_cap
    told["settings"]["preprocessing"] = {"suv_max": 64.0, "linear_transfer": linear}
    return dict(facts_of(told))["above the model's largest SUV"]


def test_of_uptake_above_the_cap_no_more_is_said_to_be_kept_than_is():
    assert uptake_above() == (
        "1 voxel (0.0 mL) above SUV 64, up to 90.0: kept from the input where the network shows nearly as much uptake,"
        " else taken for noise"
    )
    assert uptake_above(linear=False) == "1 voxel (0.0 mL) above SUV 64, up to 90.0: kept from the input"
    assert uptake_above(2, "clip") == "2 voxels (0.0 mL) above SUV 64, up to 90.0: clipped to SUV 64"


def test_foci_lost_new_and_kept_are_linked_to_their_places(page):
    """Links hold indices towards the back, the left and the head."""
    links = [tuple(map(int, link["data-place"].split(","))) for link in page.all("a") if "data-place" in link]
    near = [tuple(int(n) for n in (SHAPE[1] - 1 - j, i, k)) for i, j, k in (LOST, NEW, KEPT)]
    for place in near:
        assert min(np.abs(np.subtract(place, link)).max() for link in links) <= 1
    assert np.abs(np.subtract(links[0], near[0])).max() <= 1  # what was lost comes first
    assert "Lost (1)" in page.text
    assert "New (1)" in page.text
    x, y, z = (AFFINE @ [*LOST, 1])[:3]
    assert (x, y, z) == (-26, -8, -45)
    assert re.search(r"L 2\d\.\d, P \d+\.\d, I 4\d\.\d", page.text)


def test_intervals_are_those_of_the_realisations(page):
    assert "5.00 to 7.00" not in page.text
    reach = 4.303 * np.sqrt(1 + 1 / 3)  # Student's quantile for two degrees of freedom
    assert f"{6 - reach:.2f} to {6 + reach:.2f}" in page.text


def test_metrics_against_the_reference(written, page):
    images, _ = written
    clipped = [np.clip(volume.data, 0, 16) for volume in (images.reference, images.scan, images.denoised)]
    for image in clipped[1:]:
        assert f"{image_quality.psnr(clipped[0], image, 16):.2f}" in page.text
        assert f"{image_quality.ssim(clipped[0], image, 16):.4f}" in page.text


def test_pictures_have_texts_and_the_page_is_small(written, page):
    for image in page.all("img"):
        assert "alt" in image
    shown = [image["alt"] for image in page.all("img") if image["alt"]]
    assert len(shown) == 2 * 6  # input, result, reference, uncertainty and two differences, from two sides
    assert len(written[1]) < 1.5e6


def test_the_layout_says_how_values_are_stored(written):
    layout = json.loads(re.search(r'id="layout">(.*?)</script>', written[1], re.DOTALL)[1])
    assert layout["shape"] == [40, 44, 60]
    assert layout["voxel_mm"] == [5, 4, 3]
    assert (layout["block"], layout["step"]) == (1, 0.002)
    assert [volume["title"] for volume in layout["volumes"]] == ["Input", "Denoised", "Uncertainty (SD)", "Reference"]
    # index towards back, left, head -> mm to the right, front, head
    place = np.array(layout["affine"]) @ [SHAPE[1] - 1 - KEPT[1], KEPT[0], KEPT[2], 1]
    assert place == pytest.approx(AFFINE @ [*KEPT, 1])


def test_above_the_cut_a_focus_has_no_link(tmp_path):
    images = run()
    write_run_page(tmp_path / "report.html", images, manifest(images), neck_mm=30 * 3)
    text = (tmp_path / "report.html").read_text()
    page = Page(text)
    links = [link for link in page.all("a") if "data-place" in link]
    assert all(int(link["data-place"].split(",")[2]) < 30 for link in links)
    assert "New (1)" in page.text
    assert "The uppermost 90 mm are left out" in page.text
    assert json.loads(re.search(r'id="layout">(.*?)</script>', text, re.DOTALL)[1])["shape"] == [40, 44, 30]
    assert "There is no uncertainty map" in page.text
    with pytest.raises(InputError, match="report_neck_mm 200"):
        write_run_page(tmp_path / "other.html", images, manifest(images), neck_mm=200)
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_peaks_near_places_are_those_of_the_foci():
    images = run()
    maps = [contrast_map(volume.data, VOXEL_MM) for volume in (images.scan, images.denoised)]
    found = foci(*maps)
    peaks = peaks_near(images.denoised.data, [focus.voxel for focus in found], VOXEL_MM)
    assert peaks == pytest.approx([focus.suv_peak_elsewhere for focus in found], rel=1e-6)


def test_without_places_no_sphere_is_made():
    """One of 1 mL takes gigabytes for voxels of 0.1 mm."""
    tracemalloc.start()
    peaks = peaks_near(np.ones((4, 4, 4)), (), (0.2, 0.2, 0.2))
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peaks.shape == (0,)
    assert most < 2**16


@pytest.mark.parametrize("shape", [(5, 6, 7), (1, 9, 9), (30, 2, 4)])
def test_a_scan_of_a_few_voxels_gets_a_page_too(tmp_path, shape):
    """After hours of sampling nothing may fail on the last step."""
    scan = Volume(np.random.default_rng(0).gamma(2, 1, shape).astype(np.float32), AFFINE, "SUV", {"format": "npz"})
    images = RunImages(scan, scan, Volume(0 * scan.data, AFFINE), scan)
    write_run_page(tmp_path / "report.html", images, manifest(images, 2))
    page = Page((tmp_path / "report.html").read_text())
    assert "No sphere of 30 mm fits" in page.text
    assert "Reference" in page.text
    assert "100.00" in page.text  # the PSNR of equal images
    assert not re.search(r"\binf\b", page.text)
