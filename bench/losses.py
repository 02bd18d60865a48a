"""Measure the four forms of Chen's HLUP loss: time, and error against 50-digit arithmetic.

python -m bench.losses [--quick] [--write]
"""

import functools

import mpmath
import numpy as np

import bench
from data import label_tree

IMAGES = 32
STEPS = 10  # in one call, so that the cost of a call from Python is not measured
FORMS = {  # name in the table -> form, how the exact form adds along paths
    "naive": ("naive", None),
    "rescale": ("rescale", None),
    "powerset (as printed)": ("powerset", None),
    "exact": ("exact", "matrix"),
    "exact, gather": ("exact", "gather"),
}


def deep_tree(labels=500, depth=12, seed=0):
    """Return a random tree: one path of `depth` nodes, other labels under random earlier ones."""
    generator = np.random.default_rng(seed)
    parents, level = list(range(-1, depth - 1)), list(range(1, depth + 1))
    while len(parents) < labels:
        parent = int(generator.choice(np.flatnonzero(np.array(level) < depth)))
        parents.append(parent)
        level.append(level[parent] + 1)
    return tuple(parents)


def batch(tree, images, spread=100, seed=0):
    """Return targets that respect the tree, and logits uniform in ± spread, a tenth all large."""
    generator = np.random.default_rng(seed)
    logits = generator.uniform(-spread, spread, (images, len(tree)))
    large = max(images // 10, 1)
    logits[:large] = generator.uniform(spread / 2, spread, (large, len(tree)))
    targets = label_tree.close(generator.random(logits.shape) < 0.05, tree)
    return targets.astype(np.float32), logits.astype(np.float32)


def descent(form, sums, ancestors):
    """Return a function that takes STEPS gradient steps, compiled as Keras compiles training."""
    import tensorflow as tf

    from losses.hierarchical import hlup

    @tf.function
    def steps(targets, logits):
        for _ in tf.range(STEPS):
            with tf.GradientTape() as tape:
                tape.watch(logits)
                loss = tf.reduce_mean(hlup(targets, logits, ancestors, form, sums=sums))
            logits -= 1e-9 * tape.gradient(loss, logits)  # each step needs the one before
        return logits

    return steps


def times(tree, rounds):
    """Return by form the median milliseconds per step, and the median ratio to exact by turn."""
    import tensorflow as tf

    ancestors = label_tree.ancestor_matrix(tree)
    targets, logits = map(tf.constant, batch(tree, IMAGES))

    def run(steps):
        steps(targets, logits).numpy()

    methods = {
        name: functools.partial(run, descent(form, sums, ancestors))
        for name, (form, sums) in FORMS.items()
    }
    taken = {name: np.array(each) for name, each in bench.interleave(methods, rounds).items()}
    return {
        name: (1000 * np.median(each) / STEPS, np.median(each / taken["exact"]))
        for name, each in taken.items()
    }


def exact_terms(targets, logits, ancestors):
    """Return CE(z_m, p_m) and its gradient by image and label, computed with 50 digits."""
    values = np.zeros(logits.shape)
    gradients = np.zeros((*logits.shape, logits.shape[1]))
    with mpmath.workdps(50):
        for image, (z, y) in enumerate(zip(targets.tolist(), logits.tolist(), strict=True)):
            softplus = [mpmath.log1p(mpmath.exp(-each)) for each in y]
            slope = [1 / (1 + mpmath.exp(each)) for each in y]
            for label, path in enumerate(ancestors):
                path = np.flatnonzero(path)
                s = mpmath.fsum(softplus[node] for node in path)
                factor = -1 if z[label] else 1 / mpmath.expm1(s)
                values[image, label] = s if z[label] else -mpmath.log(-mpmath.expm1(-s))
                gradients[image, label, path] = [factor * slope[node] for node in path]
    return values, gradients


def errors(tree, images):
    """Return by form the largest relative errors, and the shares of bad terms."""
    import tensorflow as tf

    from losses.hierarchical import hlup

    ancestors = label_tree.ancestor_matrix(tree)
    targets, logits = batch(tree, images)
    values, gradients = exact_terms(targets, logits, ancestors)
    labels = len(tree)
    one_label = np.where(np.eye(labels) > 0, targets[:, None], np.nan).reshape(-1, labels)
    repeated = np.repeat(logits, labels, axis=0)  # one row per term; its other labels are unknown
    by_form = {}
    for name, (form, sums) in FORMS.items():
        if form == "rescale":
            continue  # another function on purpose
        parts, part_slopes = [], []
        for start in range(0, len(repeated), IMAGES):
            batch_of = slice(start, start + IMAGES)
            part = tf.constant(repeated[batch_of])
            with tf.GradientTape() as tape:
                tape.watch(part)
                parts.append(hlup(one_label[batch_of], part, ancestors, form, sums=sums))
            part_slopes.append(tape.gradient(parts[-1], part))
        ours = np.concatenate(parts).reshape(values.shape)
        slopes = np.concatenate(part_slopes).reshape(gradients.shape)
        by_form[name] = {
            "value": relative(ours, values),
            "gradient": relative(slopes, gradients),
            "negative": np.mean(ours < 0),
            "not finite": 1 - np.mean(np.isfinite(ours)) * np.mean(np.isfinite(slopes)),
        }
    return by_form


def relative(ours, true):
    """Return the largest relative error of the numbers whose true value exceeds 1e-3."""
    counted = np.abs(true) > 1e-3
    return np.max(np.abs(ours[counted] - true[counted]) / np.abs(true[counted]))


def report(rounds, images):
    """Return the section of docs/performance.md."""
    trees = {
        "PLCO, 19 labels, depth 4": (label_tree.PLCO, rounds, images),
        "500 labels, depth 12": (deep_tree(), max(rounds // 5, 1), max(images // 20, 1)),
    }
    rows = []
    for title, (tree, tree_rounds, tree_images) in trees.items():
        wrong = errors(tree, tree_images)
        for name, (milliseconds, ratio) in times(tree, tree_rounds).items():
            cells = ["–"] * 4
            if name in wrong:
                each = wrong[name]
                cells = [f"{each['value']:.1e}", f"{each['gradient']:.1e}"]
                cells += [f"{each['negative']:.1%}", f"{each['not finite']:.1%}"]
            rows.append([title, name, f"{milliseconds:.3f}", f"{ratio:.2f}", *cells])
    heading = ["Tree", "Form", "ms", "÷ exact", "value error", "gradient error", "negative"]
    return f"""{bench.machine()}. {IMAGES} images, float32.
ms is the median time of a value and its gradient; {STEPS} of them run in one `tf.function`, so no
call from Python is included. The forms are interleaved; the ratio is the median over turns. Errors
are the largest relative ones of single terms CE(z, p) against 50-digit arithmetic, where the true
number exceeds 1e-3; logits are uniform in ±100, and one image in ten has only large ones. `rescale`
is another function on purpose.

{bench.table([*heading, "not finite"], rows, "llrrrrrr")}"""


def main():
    options = bench.parser(__doc__, quick="seconds instead of a minute").parse_args()
    rounds, images = (4, 20) if options.quick else (60, 100)
    bench.publish("losses", report(rounds, images), options.write)


if __name__ == "__main__":
    main()
