"""Images in every form a user may give them become the same pixels, and what is no image is refused by its place."""

import base64
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch
from datasets import Dataset, Features
from datasets import Image as ImageColumn
from helpers.builders import SHARED
from hypothesis import given
from hypothesis import strategies as st
from transformers.image_utils import load_image

from transformers_tart.inputs import read_image


pytestmark = pytest.mark.core


PIXELS = np.random.default_rng(0).integers(0, 256, (6, 5, 3), dtype=np.uint8)
PICTURE = PIL.Image.fromarray(PIXELS)
GRAY = np.arange(0, 65536, 2048, dtype=np.uint16).reshape(4, 8)


def encode(image: PIL.Image.Image, kind: str = "PNG", **options: object) -> bytes:
    """An image as a file of a kind."""
    file = BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def pixels(value: object) -> np.ndarray:
    """The pixels that are read from a value."""
    image = read_image(value, "Input 3")
    assert image.mode == "RGB"
    return np.asarray(image)


PNG = encode(PICTURE)
BASE64 = base64.b64encode(PNG).decode()
# the same picture in every form but files
FORMS = {
    "bytes": PNG,
    "bytearray": bytearray(PNG),
    "base64": BASE64,
    "base64_in_lines": base64.encodebytes(PNG).decode(),
    "data_url": f"data:image/png;base64,{BASE64}",
    "pil": PICTURE,
    "pil_of_a_file": PIL.Image.open(BytesIO(PNG)),
    "array": PIXELS,
    "array_channels_first": PIXELS.transpose(2, 0, 1),
    "array_of_int64": PIXELS.astype(np.int64),
    "array_of_floats": PIXELS / 255,
    "array_rounded_out_of_range": (PIXELS / 255 * 1.0005).astype(np.float32) - 0.0002,
    "tensor": torch.from_numpy(PIXELS),
    "tensor_channels_first": torch.from_numpy(PIXELS).permute(2, 0, 1),
    "tensor_with_gradient": (torch.from_numpy(PIXELS) / 255).requires_grad_(),
    "dict": {"image": PICTURE},
    "dict_of_bytes": {"bytes": PNG, "path": "elsewhere.png"},  # no longer there
    "dict_in_a_dict": {"image": {"bytes": PNG, "path": None}},
}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Address of a server of the picture at /image, behind a redirect at /moved, and slowly at /slow."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/slow":
                time.sleep(0.5)
            content = {"/image": PNG, "/slow": PNG, "/page": b"<html>"}.get(self.path)
            self.send_response(302 if self.path == "/moved" else 404 if content is None else 200)
            self.send_header("Location", "/image")
            self.end_headers()
            with suppress(BrokenPipeError):  # of a reader who did not wait
                self.wfile.write(content or PNG)

        def log_message(self, *_: object) -> None:
            """Keep quiet."""

    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield f"http://127.0.0.1:{http.server_port}"
        http.shutdown()


@pytest.mark.parametrize("value", FORMS.values(), ids=FORMS)
def test__read_image__every_form__same_pixels(value: object) -> None:
    assert np.array_equal(pixels(value), PIXELS)


def test__read_image__file__same_pixels(tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    path.write_bytes(PNG)
    for value in (path, str(path), {"path": path}, {"bytes": None, "path": str(path)}, {"image": str(path)}):
        assert np.array_equal(pixels(value), PIXELS)


def test__read_image__url__same_pixels(server: str) -> None:
    for url in (f"{server}/image", f"{server}/moved", f"{server}/image".replace("http", "HTTP")):
        assert np.array_equal(pixels(url), PIXELS)


@pytest.mark.slow
def test__read_image__url_that_fails__os_error_but_value_error_of_a_web_page(server: str) -> None:
    with pytest.raises(OSError, match="^Input 3 cannot be fetched from its URL"):
        read_image(f"{server}/absent", "Input 3")
    with pytest.raises(OSError, match="^Input 3 cannot be fetched from its URL"):
        read_image(f"{server}/slow", "Input 3", timeout=0.05)
    for url in ("http://", "http://\x00", f"http://{'a' * 300}.com", "http://127.0.0.1:1/closed"):
        with pytest.raises(OSError, match="^Input 3 cannot be fetched from its URL"):
            read_image(url, "Input 3")
    with pytest.raises(ValueError, match="^Input 3 is no image"):
        read_image(f"{server}/page", "Input 3")


@pytest.mark.parametrize("decode", [True, False])
def test__read_image__image_column__same_pixels(decode: bool) -> None:
    table = Dataset.from_dict({"image": [PICTURE]}, features=Features({"image": ImageColumn(decode=decode)}))
    assert isinstance(table[0]["image"], PIL.Image.Image if decode else dict)
    assert all(np.array_equal(pixels(value), PIXELS) for value in (table[0], table[0]["image"]))


@pytest.mark.parametrize(
    ("mode", "kind"), [("RGBA", "PNG"), ("LA", "PNG"), ("P", "GIF"), ("CMYK", "JPEG"), ("1", "PNG"), ("RGB", "JPEG")]
)
@pytest.mark.parametrize("orientation", [1, 6])
def test__read_image__file__as_load_image(mode: str, kind: str, orientation: int, tmp_path: Path) -> None:
    exif = PIL.Image.Exif()
    exif[0x112] = orientation
    path = tmp_path / "file"
    path.write_bytes(encode(PICTURE.convert(mode), kind, exif=exif))
    expected = np.asarray(load_image(str(path)))
    assert expected.shape[:2] == ((5, 6) if orientation == 6 and kind != "GIF" else (6, 5))
    assert np.array_equal(pixels(str(path)), expected)
    assert np.array_equal(pixels(PIL.Image.open(path)), expected)


@pytest.mark.parametrize("mode", ["L", "LA", "La", "PA", "RGBX", "RGBa", "CMYK", "YCbCr", "HSV", "I", "F"])
def test__read_image__mode__pixels_of_its_white(mode: str) -> None:
    image = PIL.Image.new("L", (2, 1), 255)
    for step in {"La": ("LA", "La"), "RGBa": ("RGBA", "RGBa")}.get(mode, (mode,)):
        image = image.convert(step)
    assert image.mode == mode
    assert pixels(image).min() == 255


def test__read_image__16_bits__scaled() -> None:
    expected = np.rint(GRAY / 257)[..., None].repeat(3, -1)
    image = PIL.Image.fromarray(GRAY)
    assert image.mode == "I;16"  # which `convert` makes white
    big_endian = PIL.Image.frombytes("I;16B", (8, 4), GRAY.astype(">u2").tobytes())
    wide = PIL.Image.fromarray(GRAY.astype(np.int32))
    for value in (image, big_endian, wide, encode(image), encode(image, "TIFF")):
        assert np.array_equal(pixels(value), expected)


def test__read_image__wide_mode__scaled_by_its_range() -> None:
    for values, levels in (([0, 9, 255], [0, 9, 255]), ([0.0, 1.0, 0.6], [0, 255, 153])):
        assert pixels(PIL.Image.fromarray(np.float32([values])))[0, :, 0].tolist() == levels
    assert pixels(PIL.Image.fromarray(np.int32([[0, 1, 255]])))[0, :, 0].tolist() == [0, 1, 255]


@pytest.mark.parametrize("value", [-1, 70000, -0.5, 300.0, float("nan")])
def test__read_image__wide_mode_out_of_range__value_error(value: float) -> None:
    image = PIL.Image.fromarray(np.full((2, 2), value, dtype=np.int32 if isinstance(value, int) else np.float32))
    with pytest.raises(ValueError, match="^Input 3 is an image of mode [IF] with values"):
        read_image(image, "Input 3")


def test__read_image__animation__first_frame() -> None:
    frames = [PIL.Image.new("L", (4, 4), level) for level in (10, 200)]
    animation = encode(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert PIL.Image.open(BytesIO(animation)).n_frames == 2
    assert np.array_equal(pixels(animation), np.full((4, 4, 3), 10))


def test__read_image__gray_and_transparent_arrays__as_rgb() -> None:
    gray = PIXELS[..., 0]
    for array in (gray, gray[..., None], gray[None], torch.from_numpy(gray)[None], gray / 255):
        assert np.array_equal(pixels(array), gray[..., None].repeat(3, -1))
    assert np.array_equal(pixels(gray > 99), np.where(gray > 99, 255, 0)[..., None].repeat(3, -1))
    transparent = np.concatenate([PIXELS, PIXELS[..., :1]], -1)  # by its red
    assert np.array_equal(pixels(transparent), PIXELS)
    assert np.array_equal(pixels(transparent.transpose(2, 0, 1)), PIXELS)


def test__read_image__ambiguous_shape__channels_last() -> None:
    for array in (PIXELS[:3], torch.from_numpy(PIXELS[:3])):  # (3, 5, 3)
        assert np.array_equal(pixels(array), PIXELS[:3])


def test__read_image__given_then_changed__what_was_read_stays() -> None:
    array, image = PIXELS.copy(), PICTURE.copy()
    read = [read_image(array, "Input 3"), read_image(image, "Input 3")]
    array[:] = 0
    image.paste(0, (0, 0, 5, 6))
    assert all(np.array_equal(np.asarray(each), PIXELS) for each in read)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((0, 5, 3)), "without pixels"),
        (np.zeros((5, 5, 2)), r"the shape \(5, 5, 2\)"),
        (np.zeros(5), r"the shape \(5,\)"),
        (np.zeros(()), r"the shape \(\)"),
        (np.zeros((2, 5, 5, 3)), "one at a time"),
        (PIXELS.astype(np.float32), "undo the normalization"),
        (PIXELS / 255 - 0.1, "floats from -0.1"),
        (np.full((2, 2), np.nan), "NaN"),
        (np.full((2, 2), np.inf), "infinite"),
        (GRAY, "integers from 0 to 63488"),
        (np.full((2, 2), -1, dtype=np.int8), "integers from -1 to -1"),
        (torch.full((3, 2, 2), 256), "integers from 256 to 256"),
    ],
)
def test__read_image__array_of_no_image__value_error(array: object, message: str) -> None:
    with pytest.raises(ValueError, match=f"^Input 3 has .*{message}"):
        read_image(array, "Input 3")


@pytest.mark.parametrize("value", [None, 3, [PIXELS], BytesIO(PNG), {"image": None}, np.array([["a"]]), PIXELS * 1j])
def test__read_image__other_type__type_error(value: object) -> None:
    with pytest.raises(TypeError, match="^Input 3 "):
        read_image(value, "Input 3")


@pytest.mark.parametrize(
    "value",
    [
        *(b"", b"hello", PNG[:-30], encode(PICTURE, "JPEG")[:-80], PIL.Image.open(BytesIO(PNG[:-30]))),
        *(BASE64[: len(BASE64) // 8 * 4], "aaaa" * 2000, "data:image/png;base64,aaa", "data:image/png;base64,"),
        *(
            PIL.Image.new("RGB", (0, 5)),
            {},
            {"img": PICTURE},
            {"image": PICTURE, "label": 1},
            {"bytes": None, "path": None},
            {"bytes": b""},
        ),
    ],
    ids=lambda value: repr(value)[:20],
)
def test__read_image__no_image__value_error(value: object) -> None:
    with pytest.raises(ValueError, match="^Input 3 .*(give|leave)"):
        read_image(value, "Input 3")


@given(st.binary(max_size=40) | st.integers(0, len(PNG) - 1).map(lambda i: PNG[:i] + bytes([PNG[i] ^ 255]) + PNG[i:]))
def test__read_image__damaged_bytes__value_error_or_an_image(data: bytes) -> None:
    try:
        assert read_image(data, "Input 3").mode == "RGB"
    except ValueError as err:
        assert str(err).startswith("Input 3 ")  # noqa: PT017


def test__read_image__too_many_pixels__value_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", 10)
    for value in (PNG, BASE64):
        with pytest.raises(ValueError, match="^Input 3 has more pixels"):
            read_image(value, "Input 3")


@pytest.mark.parametrize("name", ["absent.png", "file/absent.png", "x" * 300, "", "nul\0.png"])
@pytest.mark.parametrize("kind", [str, Path])
def test__read_image__missing_or_empty_file__said(name: str, kind: type, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="^Input 3 is an empty file; leave it out"):
        read_image(tmp_path / "file", "Input 3")
    given = kind(tmp_path / name) if name else kind("absent" if kind is Path else "")
    with pytest.raises(FileNotFoundError, match="^Input 3 is not at the path.*check the path"):
        read_image(given, "Input 3")


def test__read_image__unreadable_path__named_but_no_text() -> None:
    for path in ("my cats/absent cat.png", "abcd/abc"):  # the other is base64 too
        with pytest.raises(FileNotFoundError, match=f"'{path}'"):
            read_image(path, "Input 3")
    with pytest.raises(FileNotFoundError) as caught:
        read_image("Dear Ms. Smith, your results are in.", "Input 3")
    assert "Smith" not in str(caught.value)
    with pytest.raises(OSError, match="^Input 3 cannot be read from") as caught:
        read_image(Path("/"), "Input 3")
    assert not isinstance(caught.value, FileNotFoundError)


def test__read_image__real_digits__every_form_alike(tmp_path: Path) -> None:
    path = SHARED / "data" / "mnist_small.npz"
    if not path.exists():
        pytest.skip("needs the sample of MNIST, which is absent here")
    for i, digit in enumerate(np.load(path)["image"][:20]):
        assert digit.max() > 200
        file = tmp_path / f"{i}.png"
        PIL.Image.fromarray(digit).save(file)
        for value in (digit, torch.from_numpy(digit / 255.0)[None], file, {"image": digit[..., None]}):
            assert np.array_equal(pixels(value), digit[..., None].repeat(3, -1))
