"""`python -m fcn predict`, on pictures of every kind and on what is none."""

import argparse
import os
import sys

import numpy as np
import PIL.Image
import pytest
import skimage.data
from hypothesis import given
from hypothesis import strategies as st

import fcn.model
from fcn import pictures, predict, tiling
from fcn.__main__ import main
from fcn.graph import INPUT, Graph, Node
from fcn.layers import Conv, ConvTranspose
from fcn.model import Model, build
from fcn.palette import Classes
from fcn.preprocess import Preprocess

NAMES = ("background", "red", "green", "blue")


def by_colour():
    """Return a network of one 1x1 convolution: the strongest colour, or background if dark."""
    kernel = np.zeros((1, 1, 3, 4), np.float32)
    kernel[0, 0, :, 1:] = np.eye(3)
    layer = Conv(kernel, np.array([0.3, 0, 0.001, 0], np.float32))
    graph = Graph({"scores": Node(layer, (INPUT,))}, 3)
    return Model(graph, classes=NAMES, preprocess=Preprocess(divisor=255.0))


def expected_ids(path):
    rgb = np.asarray(pictures.read(path)) / np.float32(255)
    return np.concatenate([np.full_like(rgb[..., :1], 0.3), rgb + [0, 0.001, 0]], -1).argmax(-1)


@pytest.fixture
def weights(monkeypatch, tmp_path):
    """A file that loads as the network by colour."""
    path = tmp_path / "weights.safetensors"
    path.write_bytes(b"")
    monkeypatch.setattr(fcn.model, "load", lambda path: by_colour())
    return path


@pytest.fixture
def run(weights, tmp_path):
    """Run the command; its outputs go to `tmp_path / "out"` unless the arguments say otherwise."""

    def run(*arguments):
        out = () if "--out" in map(str, arguments) else ("--out", tmp_path / "out")
        return main(["predict", *map(str, (*arguments, "--weights", weights, *out))])

    return run


def photograph(size=(60, 40)):
    return PIL.Image.fromarray(skimage.data.astronaut()).resize(size)


def files(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_folder_of_all_kinds(run, tmp_path, capsys):
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    picture = photograph()
    (folder / "text.jpg").write_text("This is no picture.")
    picture.save(folder / "whole.png")
    content = (folder / "whole.png").read_bytes()
    (folder / "truncated.png").write_bytes(content[: len(content) // 2])
    picture.convert("L").save(folder / "grey.png")
    picture.convert("CMYK").save(folder / "cmyk.jpg")
    deep = np.asarray(picture.convert("L")).astype(np.uint16) * 257
    PIL.Image.fromarray(deep).save(folder / "deep.png")
    picture.quantize(16).save(folder / "palette.gif")
    clear = picture.copy()
    clear.putalpha(PIL.Image.linear_gradient("L").resize(picture.size))
    clear.save(folder / "alpha.webp", lossless=True)
    exif = picture.getexif()
    exif[0x0112] = 6
    picture.save(folder / "turned.tif", exif=exif)
    (folder / "notes.txt").write_text("left out")
    (folder / "folder.png").mkdir()

    assert run(folder, "--overlay") == 1
    printed = capsys.readouterr()
    problems = printed.err.splitlines()
    assert problems[0] == f"fcn: {folder / 'text.jpg'}: not a picture"
    assert problems[1].startswith(f"fcn: {folder / 'truncated.png'}: not a whole picture: ")
    assert problems[2:] == ["fcn: 2 of 9 pictures failed"]
    good = {"alpha.webp", "cmyk.jpg", "deep.png", "grey.png", "palette.gif", "turned.tif"}
    good |= {"whole.png"}
    assert len(printed.out.splitlines()) == len(good)
    stems = {name.partition(".")[0] for name in good}
    endings = (".png", ".color.png", ".overlay.png")
    assert files(out) == sorted(stem + ending for stem in stems for ending in endings)
    for name in good:
        stem, ids = name.partition(".")[0], expected_ids(folder / name)
        size = (40, 60) if stem == "turned" else (60, 40)
        with PIL.Image.open(out / f"{stem}.png") as written:
            assert written.mode == "P" and written.size == size
            np.testing.assert_array_equal(written, ids)
            colours = np.array(written.getpalette()).reshape(-1, 3)
        np.testing.assert_array_equal(colours[:4], Classes.of(NAMES).colours)
        with PIL.Image.open(out / f"{stem}.color.png") as written:
            assert written.mode == "RGB"
            np.testing.assert_array_equal(written, colours[ids])
        with PIL.Image.open(out / f"{stem}.overlay.png") as written:
            assert written.width >= size[0] and written.height > size[1]
    assert len(np.unique(expected_ids(folder / "whole.png"))) == 4


def test_one_good_picture(run, tmp_path, capsys):
    photograph().save(tmp_path / "a.png")
    assert run(tmp_path / "a.png") == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    assert printed.out.startswith(f"{tmp_path / 'a.png'}: 60 x 40 pixels: ")
    assert files(tmp_path / "out") == ["a.color.png", "a.png"]
    assert run(tmp_path / "a.png", "--overlay") == 0  # its own outputs are written anew
    assert files(tmp_path / "out") == ["a.color.png", "a.overlay.png", "a.png"]


def test_a_progress_bar_on_a_terminal(run, tmp_path, capsys, monkeypatch):
    for name in ("a.png", "b.png"):
        photograph().save(tmp_path / name)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert run(tmp_path, "--tile", "32x32") == 0
    bars = capsys.readouterr().err
    assert "2/2 [" in bars and "image/s" in bars  # of the pictures
    assert "/2.40k [" in bars and "pixel/s" in bars  # of the tiles of one


def test_what_is_missing_is_reported_and_the_rest_goes_on(run, tmp_path, capsys):
    photograph().save(tmp_path / "a.png")
    assert run(tmp_path / "none.png", tmp_path / "a.png") == 1
    assert capsys.readouterr().err.splitlines() == [
        f"fcn: {tmp_path / 'none.png'}: No such file or directory",
        "fcn: 1 of 2 pictures failed",
    ]
    assert (tmp_path / "out" / "a.png").is_file()


def test_a_picture_too_large_for_the_memory(run, tmp_path, capsys, monkeypatch):
    for name in ("a.png", "b.png"):
        photograph().save(tmp_path / name)
    segment, sizes = tiling.segment, iter([MemoryError, None])

    def failing(*arguments, **options):
        if error := next(sizes):
            raise error
        return segment(*arguments, **options)

    monkeypatch.setattr(tiling, "segment", failing)
    assert run(tmp_path / "a.png", tmp_path / "b.png") == 1
    assert f"fcn: {tmp_path / 'a.png'}: not enough memory" in capsys.readouterr().err
    assert files(tmp_path / "out") == ["b.color.png", "b.png"]


def test_names_that_collide_keep_their_endings(run, tmp_path):
    for name in ("a.png", "A.bmp", "b.png", "a.color.tif"):
        photograph((3, 3)).save(tmp_path / name)
    assert run(*(tmp_path / name for name in ("a.png", "A.bmp", "b.png", "a.color.tif"))) == 0
    stems = ["A.bmp", "a.color.tif", "a.png", "b"]
    assert files(tmp_path / "out") == sorted(
        f"{s}{e}" for s in stems for e in (".png", ".color.png")
    )


def test_a_name_that_looks_like_an_output(run, tmp_path):
    photograph((3, 3)).save(tmp_path / "a.color.jpg")
    assert run(tmp_path / "a.color.jpg") == 0
    assert files(tmp_path / "out") == ["a.color.color.png", "a.color.png"]
    for name, mode in (("a.color.png", "P"), ("a.color.color.png", "RGB")):
        with PIL.Image.open(tmp_path / "out" / name) as written:
            assert written.mode == mode


def test_pictures_come_in_their_order(tmp_path):
    for name in ("b.png", "a.png", "c.txt"):
        photograph((3, 3)).save(tmp_path / name, "PNG")
    given = [tmp_path / "b.png", tmp_path, tmp_path / "c.txt", tmp_path / "b.png"]
    found = predict.expanded(given)
    assert found == [tmp_path / name for name in ("b.png", "a.png", "c.txt")]


def test_names_that_collide_all_the_same(run, tmp_path, capsys):
    for folder in ("x", "y"):
        (tmp_path / folder).mkdir()
        photograph((3, 3)).save(tmp_path / folder / "a.png")
    assert run(tmp_path / "x", tmp_path / "y") == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert all(str(tmp_path / folder / "a.png") in error for folder in ("x", "y"))
    assert not (tmp_path / "out").exists()


def test_a_picture_given_twice_is_predicted_once(run, tmp_path, capsys):
    photograph((3, 3)).save(tmp_path / "a.png")
    assert run(tmp_path / "a.png", tmp_path, tmp_path / "." / "a.png") == 0
    assert len(capsys.readouterr().out.splitlines()) == 1


@given(
    names=st.lists(
        st.tuples(
            st.sampled_from(["", "x/", "y/"]),
            st.sampled_from(["a", "A", "a.color", "a.png", "b", "a.overlay", "a.color.png"]),
            st.sampled_from([".png", ".jpg", ".PNG"]),
        ).map("".join),
        min_size=1,
        max_size=6,
        unique=True,
    )
)
def test_no_two_outputs_are_alike(names):
    paths = [predict.Path(name) for name in names]
    try:
        named = predict.output_names(paths)
    except ValueError as error:
        assert "would be written to one file" in str(error)
        return
    assert list(named) == paths
    endings = (predict.IDS, predict.COLOURED, predict.OVERLAY)
    written = [f"{name}{ending}".lower() for name in named.values() for ending in endings]
    assert len(set(written)) == len(written)


@pytest.mark.parametrize("how", ["same folder", "hard link", "weights"])
def test_no_input_is_overwritten(run, weights, tmp_path, capsys, how):
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    out.mkdir()
    photograph().save(folder / "a.png")
    if how == "same folder":
        arguments, kept = (folder, "--out", folder), folder / "a.png"
    else:
        kept = out / "a.color.png"
        os.link(folder / "a.png" if how == "hard link" else weights, kept)
        arguments = (folder,)
    before = kept.read_bytes()
    assert run(*arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"fcn: --out: {kept} is one of the inputs") and error.count("\n") == 1
    assert kept.read_bytes() == before and len(files(folder)) == 1


def test_names_that_no_file_has_stop_no_other(run, tmp_path, capsys):
    photograph().save(tmp_path / "a.png")
    (tmp_path / "out").mkdir()
    long = tmp_path / ("b" * 300 + ".png")
    barely = tmp_path / ("c" * 250 + ".png")  # that of an output is too long
    photograph().save(barely)
    assert run(tmp_path / "a.png", long, barely) == 1
    printed = capsys.readouterr()
    assert printed.out.startswith(f"{tmp_path / 'a.png'}: 60 x 40") and printed.out.count("\n") == 1
    assert printed.err.count("\n") == 3 and printed.err.count("name too long") == 2


def test_a_folder_of_pictures_and_other_files(tmp_path):
    for name in ("a.png", "b.JPG", "c.h5", "d.pdf", "e.eps", "f.mpg", "g.txt", ".h.png"):
        (tmp_path / name).write_bytes(b"")
    assert [path.name for path in predict.expanded([tmp_path])] == ["a.png", "b.JPG"]


def test_an_output_that_nobody_reads_is_no_picture_at_fault(weights, tmp_path, monkeypatch):
    photograph().save(tmp_path / "a.png")
    parser = argparse.ArgumentParser()
    predict.add_arguments(parser)
    said = [tmp_path / "a.png", "--weights", weights, "--out", tmp_path / "out"]

    def broken(text, file=None):
        raise BrokenPipeError

    monkeypatch.setattr("tqdm.tqdm.write", broken)
    with pytest.raises(BrokenPipeError):
        predict.run(parser.parse_args(list(map(str, said))))
    assert len(files(tmp_path / "out")) == 2


def test_outputs_appear_whole_or_not_at_all(run, tmp_path, monkeypatch, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.color.png").write_bytes(b"old")
    photograph().save(tmp_path / "a.jpg")
    save = PIL.Image.Image.save

    def full(self, path, *arguments, **options):
        save(self, path, *arguments, **options)
        if self.mode == "RGB":
            raise OSError("disk full")

    monkeypatch.setattr(PIL.Image.Image, "save", full)
    assert run(tmp_path / "a.jpg") == 1
    error = f"fcn: {tmp_path / 'a.jpg'}: disk full\nfcn: 1 of 1 pictures failed\n"
    assert capsys.readouterr().err == error
    assert files(tmp_path / "out") == ["a.color.png", "a.png"]
    assert (tmp_path / "out" / "a.color.png").read_bytes() == b"old"


def test_names_and_colours_of_a_file(run, tmp_path, capsys):
    photograph().save(tmp_path / "a.png")
    listing = tmp_path / "classes.txt"
    listing.write_text("none 0 0 0\nrot 250 0 0\ngrün 0 250 0\nblau 0 0 250\n", encoding="utf-8")
    assert run(tmp_path / "a.png", "--classes", listing) == 0
    assert "rot " in capsys.readouterr().out
    with PIL.Image.open(tmp_path / "out" / "a.png") as written:
        assert written.getpalette()[3:6] == [250, 0, 0]
    listing.write_text("one\ntwo\n")
    assert run(tmp_path / "a.png", "--classes", listing) == 2
    assert f"{listing}: expected 4 classes" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--tile", "0x3"], ["--tile", "32"], ["--tile", "3x-4"]])
def test_bad_options(run, arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        run("a.png", *arguments)
    assert caught.value.code == 2 and "--tile" in capsys.readouterr().err


def test_an_empty_folder(run, tmp_path, capsys):
    (tmp_path / "in").mkdir()
    assert run(tmp_path / "in") == 2
    assert (
        capsys.readouterr().err
        == f"fcn: {tmp_path / 'in'}: expected pictures in this folder, got none\n"
    )


def test_weights_that_do_not_load(run, tmp_path, monkeypatch, capsys):
    def load(path):
        raise ValueError(f"{path}: not a file of weights")

    monkeypatch.setattr(fcn.model, "load", load)
    photograph().save(tmp_path / "a.png")
    assert run(tmp_path / "a.png") == 2
    error = capsys.readouterr().err
    assert error.endswith("not a file of weights\n") and error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_more_classes_than_a_palette_has(run, tmp_path, monkeypatch, capsys):
    graph = Graph({"scores": Node(Conv(np.zeros((1, 1, 3, 300), np.float32)), (INPUT,))}, 3)
    model = Model(graph, classes=list(map(str, range(300))), preprocess=Preprocess())
    monkeypatch.setattr(fcn.model, "load", lambda path: model)
    photograph().save(tmp_path / "a.png")
    assert run(tmp_path / "a.png") == 2
    assert capsys.readouterr().err == "fcn: classes: expected 1 to 255, got 300\n"


def test_tiles_of_a_real_network(tmp_path):
    """Exact tiles, summed directly, give the whole picture's class ids; averaged ones do not."""
    model, weights = build("mobilenet_v2", 21, "8s"), tmp_path / "model.safetensors"
    rng = np.random.default_rng(0)
    for name in ("score16", "score8"):
        kernel = model.graph.nodes[name].layer.kernel
        kernel[...] = rng.standard_normal(kernel.shape)
    model.save(weights)
    strip = np.hstack([skimage.data.astronaut()[100:160]] * 2)[:, :960]
    PIL.Image.fromarray(strip).save(tmp_path / "a.png")
    found = {}
    for name, arguments in {
        "whole": (),
        "exact": ("--tile", "64x224", "--exact"),
        "averaged": ("--tile", "64x224"),
    }.items():
        command = ["predict", tmp_path / "a.png", "--weights", weights, "--out", tmp_path / name]
        assert main([*map(str, command), "--direct", *arguments]) == 0
        with PIL.Image.open(tmp_path / name / "a.png") as written:
            found[name] = np.asarray(written)
    np.testing.assert_array_equal(found["exact"], found["whole"])
    assert 0 < (found["averaged"] != found["whole"]).mean() < 0.7
    assert len(np.unique(found["whole"])) > 3


@pytest.mark.parametrize(
    ("layer", "channels", "message"),
    [
        (ConvTranspose(np.ones((3, 3, 4, 3), np.float32), strides=2), 3, "a result of the input's"),
        (Conv(np.ones((3, 3, 3, 4), np.float32), padding="VALID"), 3, "a result of the input's"),
        (Conv(np.ones((1, 1, 1, 4), np.float32)), 1, "a network of 3 channels, got one of 1"),
    ],
)
def test_a_network_that_gives_pixels_no_classes(
    run, weights, tmp_path, monkeypatch, capsys, layer, channels, message
):
    graph = Graph({"scores": Node(layer, (INPUT,))}, channels)
    model = Model(graph, classes=NAMES, preprocess=Preprocess())
    monkeypatch.setattr(fcn.model, "load", lambda path: model)
    photograph().save(tmp_path / "a.png")
    assert run(tmp_path / "a.png") == 2
    assert f"fcn: {weights}: expected {message}" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    if channels == 3:
        with pytest.raises(ValueError, match="model: expected logits of the input's size"):
            tiling.segment(model, np.zeros((9, 9, 3), np.uint8))


def test_an_output_that_cannot_be_written_stops_no_other_picture(run, tmp_path, capsys):
    for name in ("a", "b"):
        photograph().save(tmp_path / f"{name}.png")
    (tmp_path / "out" / "a.png").mkdir(parents=True)
    assert run(tmp_path / "a.png", tmp_path / "b.png") == 1
    error = capsys.readouterr().err
    assert f"fcn: {tmp_path / 'a.png'}: " in error and "1 of 2 pictures failed" in error
    assert (tmp_path / "out" / "b.png").is_file()


def test_the_folder_is_a_file(run, tmp_path, capsys):
    photograph().save(tmp_path / "a.png")
    assert run(tmp_path / "a.png", "--out", tmp_path / "a.png") == 2
    assert "--out: expected a folder, " in capsys.readouterr().err


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes by name")
def test_a_pipe_is_no_picture(run, tmp_path, capsys):
    os.mkfifo(tmp_path / "pipe.png")
    photograph().save(tmp_path / "a.png")
    assert run(tmp_path / "pipe.png", tmp_path / "a.png") == 1
    assert "not a file" in capsys.readouterr().err
    assert run(tmp_path / "a.png", "--classes", tmp_path / "pipe.png") == 2
    assert "not a file" in capsys.readouterr().err
