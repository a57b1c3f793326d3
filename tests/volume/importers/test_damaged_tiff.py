"""A damaged TIFF file is refused, or read whole; never is a stack silently shorter, or a plane zero."""

import json
import logging
import lzma
import resource
import shutil
import struct
import time
import zlib

import numpy as np
import pytest
import tifffile
from PIL import Image

from hrvol.errors import InputError
from hrvol.volume.volume import open_volume

VALUES = np.random.default_rng(0).integers(1, 250, (8, 40, 36)).astype(np.uint8)


def refused(path, read=False):
    """Return the one line that refuses a file."""
    began, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(InputError) as caught:
        opened(path, read)
    line = str(caught.value)
    assert line.isprintable()
    assert str(path) in line
    assert len(line) < 600
    assert time.process_time() - began < 2
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300 * 1024
    return line


def opened(path, read):
    volume = open_volume(path)
    return volume.read() if read else volume


def pages_of(path):
    """Return where the directory of each page is, and where its pointer to the next one is."""
    with tifffile.TiffFile(path) as file:
        return [(page.offset, page.offset + 2 + 12 * page_entries(path, page.offset)) for page in file.pages]


def page_entries(path, offset):
    return struct.unpack("<H", path.read_bytes()[offset : offset + 2])[0]


def poke(path, at, data):
    content = bytearray(path.read_bytes())
    content[at : at + len(data)] = data
    path.write_bytes(content)


def set_tag(path, page, tag, value, kind=None):
    """Overwrite the value of a tag that is stored in its entry."""
    offset, _ = pages_of(path)[page]
    content = path.read_bytes()
    for i in range(page_entries(path, offset)):
        at = offset + 2 + 12 * i
        number, stored_kind, count = struct.unpack("<HHI", content[at : at + 8])
        if number == tag:
            kind = kind or stored_kind
            poke(path, at + 2, struct.pack("<HII", kind, count, value))
            return
    raise AssertionError(f"no tag {tag}")


@pytest.fixture
def stack(tmp_path):
    """A stack whose pages have directories of their own, and no description of the whole."""
    path = tmp_path / "v.tif"
    with tifffile.TiffWriter(path) as file:
        for plane in VALUES:
            file.write(plane, metadata=None, contiguous=False, compression="zlib")
    np.testing.assert_array_equal(open_volume(path).read(), VALUES)
    return path


@pytest.mark.parametrize("where", ["beyond", "header", "circle", "itself", "text"])
def test_a_chain_of_pages_that_breaks_off(stack, where):
    pages = pages_of(stack)
    target = {
        "beyond": len(stack.read_bytes()) + 100,
        "header": 3,
        "circle": pages[0][0],
        "itself": pages[4][0],
        "text": len(stack.read_bytes()) - 3,
    }[where]
    poke(stack, pages[4][1], struct.pack("<I", target))
    assert "page 5" in refused(stack)


@pytest.mark.parametrize("last", [0, 4])
def test_a_chain_of_pages_that_ends_too_early(stack, last):
    poke(stack, pages_of(stack)[last][1], struct.pack("<I", 0))
    assert f"that belongs to none of its {last + 1} pages, expected none" in refused(stack)


@pytest.mark.parametrize("metadata", [{}, {"Labels": ["a"] * 8}])
def test_a_chain_of_pages_of_imagej_that_ends_too_early(tmp_path, metadata):
    path = tmp_path / "v.tif"
    tifffile.imwrite(path, VALUES, imagej=True, metadata=metadata)
    np.testing.assert_array_equal(open_volume(path).read(), VALUES)
    poke(path, pages_of(path)[0][1], struct.pack("<I", 0))
    assert "the list of pages ends too early" in refused(path)


@pytest.mark.parametrize("share", [0.3, 0.5, 0.7, 0.95, 0.999])
def test_a_file_that_is_cut_off_anywhere(stack, share):
    content = stack.read_bytes()
    stack.write_bytes(content[: int(len(content) * share)])
    assert "page" in refused(stack)


def test_a_file_that_is_cut_off_at_the_border_of_a_page(stack):
    stack.write_bytes(stack.read_bytes()[: pages_of(stack)[5][0]])
    assert "page 5" in refused(stack)


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("kind", ["shaped", "imagej", "ome"])
def test_declared_planes_that_are_not_there(tmp_path, kind, compression):
    path = tmp_path / "v.tif"
    options = {"shaped": {}, "imagej": {"imagej": True}, "ome": {"ome": True}}[kind]
    if kind == "imagej" and compression:
        pytest.skip("tifffile writes no compressed stacks of ImageJ")
    with tifffile.TiffWriter(path, **options) as file:
        file.write(VALUES, metadata={"axes": "ZYX"}, compression=compression)
    np.testing.assert_array_equal(open_volume(path).read(), VALUES)
    pages = pages_of(path)
    if len(pages) > 1:
        poke(path, pages[3][1], struct.pack("<I", 0))  # the chain ends, in order, after 4 of 8 pages
        assert "expected 8" in refused(path)
    path.write_bytes(path.read_bytes()[:-1500])
    refused(path)


def test_a_page_of_another_size_does_not_let_the_others_move_up(tmp_path):
    path = tmp_path / "v.tif"
    with tifffile.TiffWriter(path) as file:
        for z, plane in enumerate(VALUES):
            file.write(plane[:, :30] if z == 3 else plane, metadata=None, contiguous=False)
    assert "found page 3 of 30 x 40 pixels of 8 bits, expected 36 x 40 pixels of 8 bits as page 0" in refused(
        path
    )


@pytest.mark.parametrize(("at", "dtype"), [(3, np.uint16), (7, np.uint16), (0, np.uint16), (5, np.int8)])
def test_a_page_of_another_type(tmp_path, at, dtype):
    path = tmp_path / "v.tif"
    with tifffile.TiffWriter(path) as file:
        for z, plane in enumerate(VALUES):
            file.write(plane.astype(dtype) if z == at else plane, metadata=None, contiguous=False)
    assert "found page" in refused(path)


def test_thumbnails_and_overviews_stay_accepted(tmp_path):
    path = tmp_path / "v.tif"
    with tifffile.TiffWriter(path) as file:
        for plane in VALUES:
            file.write(plane, metadata=None, contiguous=False)
        file.write(VALUES[0, ::4, ::4], metadata=None)
        file.write(np.zeros((50, 60, 3), np.uint8), metadata=None, photometric="rgb")
    np.testing.assert_array_equal(open_volume(path).read(), VALUES)
    with tifffile.TiffWriter(tmp_path / "w.tif") as file:
        for plane in VALUES:
            file.write(plane, metadata=None, contiguous=False)
            file.write(plane[::3, ::3], metadata=None, subfiletype=1)
    np.testing.assert_array_equal(open_volume(tmp_path / "w.tif").read(), VALUES)


def test_pages_that_are_images_of_their_own(tmp_path):
    path = tmp_path / "v.tif"
    with tifffile.TiffWriter(path) as file:
        for plane in VALUES:
            file.write(plane, contiguous=False)
    assert "found 8 images (40x36, 40x36, 40x36, ...)" in refused(path)


@pytest.mark.parametrize(
    ("tag", "value", "expected"),
    [
        (256, 0, "found 0 x 40 pixels"),
        (257, 0, "found 36 x 0 pixels"),
        (256, 2**31 + 5, "pixels"),
        (258, 0, "of 0 bits"),
        (273, 2**31, "found strip or tile 0"),
        (273, 0, "found strip or tile 0"),
        (279, 0, "found strip or tile 0"),
        (279, 2**31, "found strip or tile 0"),
        (278, 0, "strips or tiles"),
        (278, 1, "found 1 strips or tiles, expected 40"),
        (277, 0, "found 0 samples"),
        (277, 60_000, "samples"),
    ],
)
@pytest.mark.parametrize("page", [0, 5])
def test_tags(stack, page, tag, value, expected):
    set_tag(stack, page, tag, value, kind=4)
    assert expected in refused(stack)


def test_tags_of_absurd_counts(stack):
    offset, _ = pages_of(stack)[0]
    poke(stack, offset + 2 + 4, struct.pack("<I", 2**31))
    refused(stack)
    poke(stack, offset, struct.pack("<H", 60_000))
    refused(stack)


@pytest.mark.parametrize(
    "content", [b"", b"II*\0", b"II*\0\x08\0\0\0", b"II+\0\x08\0\0\0", b"II*\0\0\0\0\0" + bytes(64)]
)
def test_headers(tmp_path, content):
    (tmp_path / "v.tif").write_bytes(content)
    refused(tmp_path / "v.tif")


@pytest.mark.parametrize("compression", ["zlib", "lzma"])
def test_strips_that_hold_gigabytes(tmp_path, compression):
    path = tmp_path / "v.tif"
    tifffile.imwrite(
        path,
        np.random.default_rng(0).integers(0, 255, (1, 3000, 1000)).astype(np.uint8),
        compression=compression,
        rowsperstrip=3000,
    )
    with tifffile.TiffFile(path) as file:
        at, count = file.pages[0].dataoffsets[0], file.pages[0].databytecounts[0]
    if compression == "zlib":
        # Blocks that end with a full flush can be repeated.
        stream = zlib.compressobj()
        block = stream.compress(bytes(10**7)) + stream.flush(zlib.Z_FULL_FLUSH)
        bomb = block + block[2:] * 200
    else:
        packer = lzma.LZMACompressor(preset=0)
        bomb = packer.compress(bytes(10**8)) + packer.flush()
    assert len(bomb) < count
    poke(path, at, bomb)
    message = refused(path, read=True)  # by imagecodecs, if that is installed
    assert "found more than" in message or "INSUFFICIENT_SPACE" in message


def ome_set(folder, names=("a.ome.tif", "b.ome.tif"), planes=4):
    """Write an OME set: the metadata of all planes in the first file, half of the planes in each."""
    uuids = [f"urn:uuid:0000000{i}-0000-0000-0000-000000000000" for i in range(len(names))]
    data = "".join(
        f'<TiffData FirstZ="{i * planes}" IFD="0" PlaneCount="{planes}">'
        f'<UUID FileName="{name}">{uuid}</UUID></TiffData>'
        for i, (name, uuid) in enumerate(zip(names, uuids, strict=True))
    )
    paths = []
    for i, (name, uuid) in enumerate(zip(names, uuids, strict=True)):
        xml = (
            '<?xml version="1.0" encoding="UTF-8"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"'
            f' UUID="{uuid}"><Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="uint8"'
            f' SizeX="36" SizeY="40" SizeZ="{planes * len(names)}" SizeC="1" SizeT="1"><Channel ID="C:0"'
            f' SamplesPerPixel="1"/>{data}</Pixels></Image></OME>'
        )
        paths.append(folder / name)
        with tifffile.TiffWriter(folder / name) as file:
            for z in range(planes):
                description = xml if z == 0 else None
                file.write(VALUES[i * planes + z], metadata=None, description=description, contiguous=False)
    return paths


def test_files_of_an_ome_set(tmp_path):
    first, second = ome_set(tmp_path)
    np.testing.assert_array_equal(open_volume(first).read(), VALUES)
    (tmp_path / "other").mkdir()
    another = ome_set(tmp_path / "other", names=("x.ome.tif", "y.ome.tif", "b.ome.tif"), planes=2)[2]
    shutil.copy(another, second)
    assert "b.ome.tif of another set" in refused(first)
    second.unlink()
    assert "found no file b.ome.tif" in refused(first)


def test_a_file_of_an_ome_set_that_is_shorter_or_of_another_size(tmp_path):
    first, second = ome_set(tmp_path)
    poke(second, pages_of(second)[1][1], struct.pack("<I", 0))
    assert "found no pixels of some of its" in refused(first)
    ome_set(tmp_path)
    set_tag(second, 2, 256, 35)
    with pytest.raises(InputError, match=r"b\.ome\.tif: found page 3 of 35 x 40"):
        open_volume(first)


def with_description(path, text, values=VALUES):
    with tifffile.TiffWriter(path) as file:
        for z, plane in enumerate(values):
            file.write(plane, metadata=None, description=text if z == 0 else None, contiguous=False)
    return path


OME = '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">{}</OME>'
PIXELS = (
    '<Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="uint8" SizeX="36" SizeY="40"'
    " {}</Pixels></Image>"
)
SIZES = 'SizeZ="8" SizeC="1" SizeT="1"'


@pytest.mark.parametrize(
    ("xml", "expected"),
    [
        (
            OME.format('<BinaryOnly MetadataFile="set.companion.ome" UUID="urn:uuid:1"/>'),
            "set.companion.ome (it is missing)",
        ),
        (
            OME.format('<BinaryOnly MetadataFile="../../etc/passwd" UUID="urn:uuid:1"/>'),
            "expected one in the same folder",
        ),
        (
            OME.format(PIXELS.format('SizeZ="80" SizeC="1" SizeT="1"><TiffData/>')),
            "found 8 pages, expected 80",
        ),
        (OME.format(PIXELS.format('SizeZ="4" SizeC="1" SizeT="1"><TiffData/>')), "found 8 pages, expected 4"),
        (OME.format(PIXELS.format('SizeZ="1000000000000" SizeC="1" SizeT="1"><TiffData/>')), "SizeZ"),
        (OME.format(PIXELS.format('SizeZ="eight" SizeC="1" SizeT="1"><TiffData/>')), "found SizeZ eight"),
        (OME.format(PIXELS.format(f'{SIZES}><TiffData IFD="0" PlaneCount="1000000000000"/>')), "PlaneCount"),
        (OME.format(PIXELS.format(f'{SIZES}><TiffData FirstZ="-1"/>')), "FirstZ"),
        (OME.format(""), "found no Image"),
        (OME.format("<a>" * 200 + "</a>" * 200), "nested"),
        (OME.format("<Image>"), "OME-XML"),
        ('<!DOCTYPE OME [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]>' + OME.format("&b;"), "definitions"),
        (
            OME.format(
                PIXELS.format(f'{SIZES}><TiffData><UUID FileName="../b.tif">urn:uuid:2</UUID></TiffData>')
            ),
            "same folder",
        ),
        (
            OME.format(
                '<StructuredAnnotations><XMLAnnotation ID="A" Namespace="x/modulo"><Value><Modulo>'
                '<ModuloAlongT Type="x" Start="0" End="1e18" Step="1"/></Modulo></Value></XMLAnnotation>'
                "</StructuredAnnotations>" + PIXELS.format(f"{SIZES}><TiffData/>")
            ),
            "axis of too many values",
        ),
    ],
    ids=lambda value: "" if value.startswith("<") else value,
)
def test_ome_xml(tmp_path, xml, expected):
    assert expected in refused(with_description(tmp_path / "v.tif", xml))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ImageJ=1.53\nimages=80\nslices=80\n", "found 8 planes, expected 80"),
        (f"ImageJ=1.53\nimages={10**15}\n", "found 8 planes, expected 1,000,000,000,000,000"),
        ("ImageJ=\nimages=\n", "cannot be read"),
        (json.dumps({"shape": [80, 40, 36]}), "expected 80"),
        ('{"shape": "odd"}', "cannot be read"),
        ('{"shape": [', "cannot be read"),
    ],
)
def test_descriptions(tmp_path, text, expected):
    assert expected in refused(with_description(tmp_path / "v.tif", text))


@pytest.mark.parametrize(
    ("text", "note"),
    [
        (OME.format(PIXELS.format(f'{SIZES} PhysicalSizeX="0"><TiffData/>')), "found the size 0 along x"),
        (OME.format(PIXELS.format(f'{SIZES} PhysicalSizeX="NaN"><TiffData/>')), "found the size NaN along x"),
        (OME.format(PIXELS.format(f'{SIZES} PhysicalSizeY="-2"><TiffData/>')), "found the size -2 along y"),
        (OME.format(PIXELS.format(f'{SIZES} PhysicalSizeZ="wide"><TiffData/>')), "the size wide along z"),
        ("ImageJ=1.53\nimages=8\nslices=8\nspacing=0.0\nunit=um\n", "found the size 0.0 along z"),
        ("ImageJ=1.53\nimages=8\nslices=8\nspacing=NaN\n", "found the size nan along z"),
        ("ImageJ=1.53\nimages=8\nslices=8\nspacing=-1.5\n", "found the size -1.5 along z"),
    ],
    ids=lambda value: "" if value.startswith("<") else value,
)
def test_sizes_that_are_none_are_unknown(tmp_path, text, note):
    volume = open_volume(with_description(tmp_path / "v.tif", text))
    assert volume.voxel_size == (1.0, 1.0, 1.0)
    assert len(volume.notes) == 1
    assert f"{note}, taken as unknown" in volume.notes[0]
    np.testing.assert_array_equal(volume.read(), VALUES)


@pytest.mark.parametrize("text", ["ImageJ=1.5\nunit=um\n", "SCANIMAGE", "\x1b[31m"])
def test_descriptions_that_say_nothing(tmp_path, text):
    path = with_description(tmp_path / "v.tif", text.encode())
    np.testing.assert_array_equal(open_volume(path).read(), VALUES)


def test_the_log_of_tifffile_is_not_ours(tmp_path, caplog, capfd):
    with caplog.at_level(logging.DEBUG):
        test_descriptions_that_say_nothing(tmp_path, "ImageJ=1.5\nframes=7\nchannels=3")
        stack_path = with_description(tmp_path / "w.tif", "none")
        stack_path.write_bytes(stack_path.read_bytes()[:-500])
        refused(stack_path, read=True)
    assert not [record for record in caplog.records if record.name == "tifffile"]
    assert capfd.readouterr() == ("", "")
    assert not logging.getLogger("tifffile").filters


def bare(path, values, more=(), pixels=None):
    """Write a stack by hand: each page with more entries (tag, type, count, value)."""
    content, pointer = bytearray(b"II*\0\0\0\0\0"), 4
    for plane in values:
        at = len(content)
        content += plane.tobytes()
        height, width = plane.shape
        entries = [(256, 3, 1, width), (257, 3, 1, height), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1)]
        entries += [(273, 4, 1, at), (277, 3, 1, 1), (278, 4, 1, height), (279, 4, 1, plane.size), *more]
        struct.pack_into("<I", content, pointer, len(content))
        content += struct.pack("<H", len(entries))
        content += b"".join(struct.pack("<HHII", *entry) for entry in sorted(entries))
        pointer = len(content)
        content += bytes(4)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    "entry", [(306, 2, 20, 10**7), (282, 5, 1, 10**8), (50_000, 7, 10**6, 10**7)], ids=str
)
def test_tags_that_are_not_read_may_point_anywhere(tmp_path, entry):
    path = bare(tmp_path / "v.tif", VALUES, [entry])
    np.testing.assert_array_equal(open_volume(path).read(), VALUES)
    poke(path, pages_of(path)[3][1], struct.pack("<I", 0))
    assert entry[0] >= 32768 or "ends too early" in refused(path)


def test_stacks_with_padding_stay_accepted(tmp_path):
    path = bare(tmp_path / "v.tif", VALUES)
    path.write_bytes(path.read_bytes() + bytes(10_000))
    np.testing.assert_array_equal(open_volume(path).read(), VALUES)
    tifffile.imwrite(tmp_path / "i.tif", VALUES, imagej=True)
    (tmp_path / "i.tif").write_bytes((tmp_path / "i.tif").read_bytes() + bytes(10_000))
    np.testing.assert_array_equal(open_volume(tmp_path / "i.tif").read(), VALUES)
    # The first plane has next to no bytes once compressed; less than the padding of all the others.
    labels = np.zeros((30, 200, 200), np.uint8)
    labels[10:, 50:, 60:] = 1
    for name, compression in (("d.tif", "tiff_deflate"), ("p.tif", None)):
        images = [Image.fromarray(plane) for plane in labels]
        images[0].save(tmp_path / name, save_all=True, append_images=images[1:], compression=compression)
        np.testing.assert_array_equal(open_volume(tmp_path / name).read(), labels)
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        for plane in labels:
            file.write(plane, metadata=None, compression="zlib", contiguous=False, align=4096)
    np.testing.assert_array_equal(open_volume(tmp_path / "a.tif").read(), labels)


def test_a_directory_that_was_replaced_is_no_lost_page(tmp_path):
    path = bare(tmp_path / "v.tif", VALUES)
    (_, _), (offset, end) = pages_of(path)[3:5]
    content = path.read_bytes()
    poke(path, pages_of(path)[3][1], struct.pack("<I", len(content)))
    path.write_bytes(path.read_bytes() + content[offset : end + 4])
    np.testing.assert_array_equal(open_volume(path).read(), VALUES)


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_tiles_with_depth(tmp_path, compression):
    values = np.random.default_rng(0).integers(0, 250, (20, 64, 64)).astype(np.uint8)
    tifffile.imwrite(tmp_path / "v.tif", values, tile=(16, 32, 32), volumetric=True, compression=compression)
    np.testing.assert_array_equal(open_volume(tmp_path / "v.tif").read(), values)


def test_tiles_that_are_left_out(tmp_path):
    tile = np.full((16, 16), 7, np.uint8)
    with tifffile.TiffWriter(tmp_path / "v.tif") as file:
        for _ in range(3):
            tiles = iter([tile, None, tile, None])
            file.write(tiles, shape=(32, 32), dtype=np.uint8, tile=(16, 16), metadata=None, contiguous=False)
    values = open_volume(tmp_path / "v.tif").read()
    assert values.shape == (3, 32, 32)
    np.testing.assert_array_equal(values[1, ::16, ::16], [[7, 0], [7, 0]])


def test_masks_are_no_pages_of_a_stack(tmp_path):
    with tifffile.TiffWriter(tmp_path / "v.tif") as file:
        for plane in VALUES:
            file.write(plane, metadata=None, contiguous=False)
            file.write(plane > 100, metadata=None, subfiletype=4)
    np.testing.assert_array_equal(open_volume(tmp_path / "v.tif").read(), VALUES)


def test_an_ome_tiff_of_images_of_several_types(tmp_path):
    path = tmp_path / "v.ome.tif"
    with tifffile.TiffWriter(path, ome=True) as file:
        file.write(VALUES, metadata={"axes": "ZYX"}, compression="zlib")
        file.write(np.zeros((3, 50, 60), np.uint16), metadata={"axes": "ZYX"}, compression="zlib")
    np.testing.assert_array_equal(open_volume(path).read(), VALUES)
    set_tag(path, 5, 256, 35)
    assert "found page 5 of 35 x 40" in refused(path)


def test_an_ome_tiff_that_was_renamed(tmp_path):
    (path,) = ome_set(tmp_path, names=("a.ome.tif",), planes=8)
    attribute = b' UUID="urn:uuid:00000000-0000-0000-0000-000000000000"'
    poke(path, path.read_bytes().index(attribute), b" " * len(attribute))
    renamed = path.rename(tmp_path / "b.ome.tif")
    np.testing.assert_array_equal(open_volume(renamed).read(), VALUES)
