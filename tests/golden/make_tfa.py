"""Write tfa.npz with tensorflow-addons 0.23.0; see README.md for the environment it needs."""

from pathlib import Path

import numpy as np
import tensorflow as tf
import tensorflow_addons as tfa
from tensorflow_addons.image import transform_ops

SIZE = 41
DEGREES, SCALE, SHEAR = 7.0, 1.02, 5 / 224


def picture() -> np.ndarray:
    """Return smooth waves and a few sharp edges, 0 to 255."""
    y, x = np.mgrid[:SIZE, :SIZE].astype(np.float32)
    waves = 128 + 50 * np.sin(x / 3.1 + y / 7.3) + 40 * np.cos(y / 2.7 - x / 11.0)
    waves[10:16, 22:30] = 250
    waves[25:33, 5:9] = 5
    return np.clip(waves, 0, 255).round()


def composed(degrees: float, scale: float, shear: float, flip: bool) -> tf.Tensor:
    """The map of data.augment.affine, put together by tensorflow-addons' own functions."""
    centre = (SIZE - 1) / 2
    turn = transform_ops.angles_to_projective_transforms(np.radians(degrees), SIZE, SIZE)
    zoom = [[1 / scale, 0, centre * (1 - 1 / scale), 0, 1 / scale, centre * (1 - 1 / scale), 0, 0]]
    lean = [[1, shear, -shear * centre, 0, 1, 0, 0, 0]]
    mirror = [[-1, 0, SIZE - 1, 0, 1, 0, 0, 0]] if flip else [[1, 0, 0, 0, 1, 0, 0, 0]]
    parts = [tf.constant(part, tf.float32) for part in (mirror, lean, zoom)]
    return transform_ops.compose_transforms([*parts, tf.cast(turn, tf.float32)])


def main() -> None:
    image = picture()
    tensor = tf.constant(image[None, :, :, None])
    three = tf.constant(np.repeat(image[:, :, None], 3, 2).astype(np.uint8))
    golden = {"image": image}

    def transformed(flat) -> np.ndarray:
        return tfa.image.transform(tensor, flat, interpolation="bilinear").numpy()[0, :, :, 0]

    for degrees in (7.0, -7.0, 2.5):
        turned = tfa.image.rotate(tensor, np.radians(degrees), interpolation="bilinear")
        golden[f"rotate {degrees}"] = turned.numpy()[0, :, :, 0]
    shifted = tfa.image.translate(tensor, [2.25, -3.5], interpolation="bilinear")
    golden["translate 2.25 -3.5"] = shifted.numpy()[0, :, :, 0]
    golden["shear_x 0.05"] = tfa.image.shear_x(three, 0.05, 0).numpy()[..., 0]
    for flip in (False, True):
        flat = composed(DEGREES, SCALE, SHEAR, flip)
        golden[f"composed {flip:d} matrix"] = flat.numpy()[0]
        golden[f"composed {flip:d}"] = transformed(flat)
    np.savez_compressed(Path(__file__).parent / "tfa.npz", **golden)


if __name__ == "__main__":
    main()
