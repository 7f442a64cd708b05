"""Times the scoring of captions against a large gallery, beside the sorting way.

    python tests/benchmarks/metrics.py [--queries=10000] [--gallery=100000] [--positives=4]
                                       [--uneven] [--sort_queries=500] [--ties=pessimistic]

Prints wall and CPU seconds, peak memory, and the ratio to sorting. The sorting way (a full
similarity matrix, argsort of every row, NumPy) is timed on `--sort_queries` of the queries and
scaled up, as it is linear in their number. CPU seconds are the fair ones on a machine that does
other work too. `--uneven` draws the sizes of the identities from a heavy-tailed law, from 1 to
tens of thousands of images, instead of giving each the same number.
"""

import argparse
import resource
import time

import numpy as np

from jaxtbpr.retrieval.evaluation import metrics


def main():
    options = parse()
    data = make_features(options)
    seconds = timed(lambda: metrics.retrieval_metrics(*data, ties=options.ties))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    report("counting", *seconds)
    print(f"  peak memory of the process {peak:.2f} GiB, features included")
    share = options.queries / options.sort_queries
    data[0], data[2] = data[0][: options.sort_queries], data[2][: options.sort_queries]
    sorting = [share * number for number in timed(lambda: sort_and_score(*data))]
    report("sorting", *sorting)
    ratios = [slow / fast for slow, fast in zip(sorting, seconds, strict=True)]
    print(f"counting is {ratios[0]:.1f} times faster by the wall, {ratios[1]:.1f} by CPU time")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--queries", type=int, default=10_000)
    parser.add_argument("--gallery", type=int, default=100_000)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--positives", type=int, default=4, help="images of each identity")
    parser.add_argument("--uneven", action="store_true")
    parser.add_argument("--sort_queries", type=int, default=500)
    parser.add_argument("--ties", choices=metrics.TIES, default="pessimistic")
    return parser.parse_args()


def make_features(options) -> list[np.ndarray]:
    """Query features, gallery features, query ids, gallery ids."""
    rng = np.random.default_rng(0)
    gallery_ids = np.arange(options.gallery) // options.positives
    if options.uneven:
        gallery_ids = np.minimum(2 * rng.pareto(1.0, options.gallery), 20_000).astype(int)
    gallery = unit(rng.standard_normal((options.gallery, options.width), dtype=np.float32))
    query_ids = rng.choice(np.unique(gallery_ids), options.queries)
    queries = unit(rng.standard_normal((options.queries, options.width), dtype=np.float32))
    return [queries, gallery, query_ids, gallery_ids]


def unit(features: np.ndarray) -> np.ndarray:
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    return features


def sort_and_score(queries, gallery, query_ids, gallery_ids) -> tuple[float, float, float]:
    """R@1, mAP and mINP as the field's codebases compute them."""
    order = np.argsort(-(queries @ gallery.T), axis=1)
    matches = gallery_ids[order] == query_ids[:, None]
    so_far = matches.cumsum(axis=1)
    number = so_far[:, -1]
    precision = so_far / np.arange(1, len(gallery) + 1) * matches
    last = matches.shape[1] - np.argmax(matches[:, ::-1], axis=1)
    ap = precision.sum(axis=1) / number
    return float(matches[:, 0].mean()), float(ap.mean()), float((number / last).mean())


def timed(work) -> tuple[float, float]:
    """Wall and CPU (user and system) seconds of a call, compilation included."""
    wall, cpu = time.perf_counter(), time.process_time()
    print(work())
    return time.perf_counter() - wall, time.process_time() - cpu


def report(name: str, wall: float, cpu: float) -> None:
    print(f"{name}: {wall:.1f} s by the wall, {cpu:.1f} s of CPU time")


if __name__ == "__main__":
    main()
