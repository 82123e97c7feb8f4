"""TIFF and OME-TIFF: where the bands lie, what their wavelengths are, and what is not believed."""

import struct

import numpy as np
import pytest
import tifffile

from synthgen.cubes.readers.describe import describe
from synthgen.cubes.readers.open import Hints, open_source
from synthgen.errors import InputError
from tests.formats import export_cube

NM = (450.0, 480.0, 510.0, 540.0, 570.0, 600.0)
CUBES = np.random.default_rng(0).integers(0, 4000, (2, 6, 5, 8)).astype(np.uint16)
GIVEN = Hints(wavelengths=NM)


def check(path, cubes=CUBES[:1], hints=GIVEN):
    source = open_source(path, hints)
    assert source.layout.count == len(cubes) and source.wavelengths == NM
    for i, cube in enumerate(cubes):
        assert np.array_equal(source.read(i), cube)
    return source


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("plain", [True, False])
def test_bands_as_pages_samples_or_pages_written_one_by_one(tmp_path, plain, compression):
    settings = {"photometric": "minisblack", "compression": compression} | ({"metadata": None} if plain else {})
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, CUBES[0], **settings)
    check(path)
    tifffile.imwrite(path, CUBES[0].transpose(1, 2, 0), planarconfig="contig", **settings)
    check(path)
    tifffile.imwrite(path, CUBES[0], planarconfig="separate", **settings)
    check(path)
    with tifffile.TiffWriter(path) as file:
        for plane in CUBES[0]:
            file.write(plane, contiguous=False, **settings)
    check(path)
    tifffile.imwrite(path, CUBES[0], bigtiff=True, tile=(16, 16), **settings)
    assert check(path).format == "BigTIFF"


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_several_cubes(tmp_path, compression):
    settings = {"photometric": "minisblack", "compression": compression}
    path = tmp_path / "a.tif"
    for axes in ("TCYX", "CTYX"):
        stored = CUBES.transpose([{"T": 0, "C": 1, "Y": 2, "X": 3}[a] for a in axes])
        tifffile.imwrite(path, stored, metadata={"axes": axes}, ome=True, **settings)
        check(path, CUBES)
        tifffile.imwrite(path, stored, metadata={"axes": axes}, **settings)
        check(path, CUBES)
    with tifffile.TiffWriter(path) as file:  # one series each
        for cube in CUBES:
            file.write(cube, metadata={"axes": "CYX"}, **settings)
    check(path, CUBES)
    check(path, CUBES[1:], Hints(variable="series 1", wavelengths=NM))
    tifffile.imwrite(path, CUBES.transpose(0, 2, 3, 1), metadata={"axes": "TYXS"}, planarconfig="contig", **settings)
    check(path, CUBES)


def test_imagej_hyperstacks_and_their_labels(tmp_path):
    path = tmp_path / "a.tif"
    labels = [f"{nm:g} nm" for nm in NM]
    tifffile.imwrite(path, CUBES[0], imagej=True, metadata={"axes": "CYX", "Labels": labels})
    assert check(path, hints=Hints()).wavelengths_from == "ImageJ labels"
    tifffile.imwrite(path, CUBES, imagej=True, metadata={"axes": "TCYX"})
    check(path, CUBES)


def test_wavelengths_from_page_names_and_descriptions(tmp_path):
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as file:
        for nm, plane in zip(NM, CUBES[0], strict=True):
            file.write(plane, metadata=None, extratags=[(285, 2, 0, f"Band {nm:g} nm", True)])
    assert check(path, hints=Hints()).wavelengths_from == "page names"
    text = '{"wavelengths_nm": [450, 480, 510, 540, 570, 600]}'
    tifffile.imwrite(path, CUBES[0], metadata=None, description=text, photometric="minisblack")
    assert "wavelengths_nm" in check(path, hints=Hints()).wavelengths_from


@pytest.mark.parametrize(
    ("channel", "where"),
    [
        ({"EmissionWavelength": list(NM)}, "EmissionWavelength"),
        ({"EmissionWavelength": [n / 1e3 for n in NM], "EmissionWavelengthUnit": ["µm"] * 6}, "EmissionWavelength"),
        ({"ExcitationWavelength": list(NM), "ExcitationWavelengthUnit": ["nm"] * 6}, "ExcitationWavelength"),
        ({"Name": [f"filter {k} {n:g}nm" for k, n in enumerate(NM)]}, "channel names"),
    ],
)
def test_ome_channels(tmp_path, channel, where):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, CUBES[0], ome=True, photometric="minisblack", metadata={"axes": "CYX", "Channel": channel})
    source = open_source(path)
    assert source.wavelengths == pytest.approx(NM) and where in source.wavelengths_from and source.format == "OME-TIFF"
    found = describe(path)
    assert found["kind"] == "OME-TIFF file" and found["wavelengths_nm"] == pytest.approx(NM)
    assert found["arrays"] == {"series 0": "uint16 [6, 5, 8] CYX"} and found["byte order"] == "little"


def test_decreasing_channels_are_sorted_and_equal_ones_refused(tmp_path):
    path, settings = tmp_path / "a.tif", {"ome": True, "photometric": "minisblack"}
    metadata = {"axes": "CYX", "Channel": {"EmissionWavelength": list(NM[::-1])}}
    tifffile.imwrite(path, CUBES[0][::-1], metadata=metadata, **settings)
    assert "sorted" in check(path, hints=Hints()).wavelengths_from
    metadata["Channel"] = {"EmissionWavelength": [450, 450, 510, 540, 570, 600]}
    tifffile.imwrite(path, CUBES[0], metadata=metadata, **settings)
    with pytest.raises(InputError, match="same wavelength"):
        open_source(path)


def test_what_does_not_fit_is_named(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, CUBES[0], photometric="minisblack")
    for hints, finding in (
        (Hints(), "wavelengths absent"),
        (Hints(wavelengths=NM[:4]), "wrong number of bands"),
        (Hints(wavelengths=NM, axes="NCHW"), "do not fit"),
        (Hints(wavelengths=NM, variable="series 9"), "no 'series 9'"),
    ):
        with pytest.raises(InputError, match=finding):
            open_source(path, hints)
    tifffile.imwrite(path, CUBES[0, 0])
    with pytest.raises(InputError, match="single plane"):
        open_source(path, Hints(wavelengths=NM))


def test_colour_pages_and_other_numbers_are_refused(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.zeros((6, 5, 8, 3), np.uint8), photometric="rgb")
    with pytest.raises(InputError, match="wrong number of bands"):
        open_source(path, GIVEN)
    for dtype in (bool, np.complex64):
        tifffile.imwrite(path, CUBES[0].astype(dtype), photometric="minisblack")
        with pytest.raises(InputError, match="no pages of numbers"):
            open_source(path, GIVEN)


def test_inverted_greys_are_taken_as_stored_and_named(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", CUBES[0], photometric="miniswhite")
    assert "0 is white" in check(tmp_path / "a.tif").notes[0]


def test_an_array_stored_with_its_bands_last(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", CUBES[0].transpose(1, 2, 0), photometric="minisblack")
    check(tmp_path / "a.tif")


@pytest.mark.parametrize("tag", ["ImageWidth", "ImageLength", "SamplesPerPixel", "StripByteCounts", "RowsPerStrip"])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_absurd_sizes_in_tags(tmp_path, tag, compression):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, CUBES[0], metadata=None, photometric="minisblack", compression=compression)
    with tifffile.TiffFile(path) as file:
        at = [page.tags[tag].offset for page in file.pages]
    data = bytearray(path.read_bytes())
    for offset in at:
        data[offset + 2 : offset + 12] = struct.pack("<HII", 4, 1, 2**31)
    path.write_bytes(data)
    try:
        cube = open_source(path, GIVEN).read(0)
    except InputError:
        return
    # More rows per strip than there are mean all of them; of a plain array the counts say nothing new.
    assert tag in ("RowsPerStrip", "StripByteCounts") and np.array_equal(cube, CUBES[0])


@pytest.mark.parametrize(
    ("old", "new", "finding"),
    [
        (b'SizeC="6"', b'SizeC="9"', "more planes"),
        (b'SizeC="6"', b'SizeC="x"', "OME-XML is damaged"),
        (b'SizeC="6"', b'SizeC="-6"', "OME-XML is damaged"),
        (b'PlaneCount="6"', b'PlaneCount="99999999999"', "more planes"),
        (b"<Image ", b"<!DOCTYPE a [<!ENTITY b 'c'>]><Image ", "document type"),
        (b"</OME>", b"</EMO>", None),
    ],
)
def test_ome_xml_is_not_believed(tmp_path, old, new, finding):
    path = tmp_path / "a.tif"
    export_cube(path, CUBES[0], NM, "ome-tiff")
    with tifffile.TiffFile(path) as file:
        text = file.ome_metadata.encode()
    assert old in text
    tifffile.imwrite(path, CUBES[0], metadata=None, photometric="minisblack", description=text.replace(old, new))
    with pytest.raises(InputError, match=finding):
        open_source(path)


def test_no_plane_is_taken_from_another_file(tmp_path):
    path = tmp_path / "a.tif"
    export_cube(tmp_path / "b.tif", CUBES[1], NM, "ome-tiff")
    export_cube(path, CUBES[0], NM, "ome-tiff")
    with tifffile.TiffFile(path) as file:
        text = file.ome_metadata
    start, end = text.index("<TiffData"), text.index("</Pixels>")
    planes = "".join(
        f'<TiffData IFD="{k}" FirstC="{k}" PlaneCount="1"><UUID FileName="{"ab"[k % 2]}.tif">urn:uuid:{k % 2}</UUID>'
        "</TiffData>"
        for k in range(6)
    )
    text = (text[:start] + planes + text[end:]).encode()
    tifffile.imwrite(path, CUBES[0], metadata=None, photometric="minisblack", description=text)
    with pytest.raises(InputError, match="only some planes"):
        open_source(path)


@pytest.mark.parametrize("form", ["tiff", "ome-tiff"])
@pytest.mark.parametrize("compression", [None, "zlib", "lzw"])
def test_a_file_cut_short_is_refused_or_read_right(tmp_path, form, compression):
    path = export_cube(tmp_path / "a.tif", CUBES[0], NM, form, compression=compression)
    whole, refused = path.read_bytes(), 0
    for length in range(1, len(whole), 37):
        path.write_bytes(whole[:length])
        try:
            cube = open_source(path).read(0)
        except InputError:
            refused += 1
        else:  # the tail of an uncompressed file only repeats where its pages lie
            assert np.array_equal(cube, CUBES[0])
    assert refused > len(whole) / 37 / 3


def test_one_of_many_cubes_costs_the_memory_of_one(tmp_path):
    import tracemalloc

    cubes = np.zeros((12, 6, 128, 128), np.uint16)
    for compression in (None, "zlib"):
        path = tmp_path / "a.tif"
        settings = {"photometric": "minisblack", "compression": compression, "metadata": {"axes": "TCYX"}}
        tifffile.imwrite(path, cubes, ome=True, **settings)
        source = open_source(path, GIVEN)
        tracemalloc.start()
        source.read(5)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 3 * cubes[0].nbytes < cubes.nbytes
