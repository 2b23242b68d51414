"""Large-batch training and generalization: run what papers did, see what is recorded, judge their claims."""

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from lbgap import paths

if TYPE_CHECKING:  # a command imports what it needs: --help is there at once
    from lbgap.papers.paper import Study
    from lbgap.records import Store
    from lbgap.spec import Job
    from lbgap.sweep import Task


class _Refused(Exception):
    """Arguments that are not accepted, in one sentence."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        # a list of names before it would have taken it up
        raise _Refused(message.replace("required: PAPER", "required: PAPER, which comes before the options"))


def _number(name: str, kind: type, accepted: str) -> Callable[[str], Any]:
    """A parser's type whose error is a sentence like all others."""

    def convert(text: str) -> Any:
        try:
            return kind(text)
        except ValueError:
            raise _Refused(f"{name} is '{text}'; accepted is {accepted}") from None

    return convert


def _share(text: str) -> tuple[int, int]:
    part, _, of = text.partition("/")
    if not (part.isdecimal() and of.isdecimal()):
        raise _Refused(f"share is '{text}'; accepted is i/n with i from 1 to n")
    return int(part), int(of)


def _whole(name: str) -> Callable[[str], int]:
    return _number(name, int, "a whole number")


def parser() -> argparse.ArgumentParser:
    """The parser of every command; ``command`` is the function that carries it out."""
    main = _Parser("lbgap", description=__doc__, allow_abbrev=False)
    commands = main.add_subparsers(metavar="COMMAND", required=True)

    def add(name: str, function: Callable[[argparse.Namespace], None], of: Any = commands) -> argparse.ArgumentParser:
        command = of.add_parser(name, help=function.__doc__, description=function.__doc__, allow_abbrev=False)
        command.set_defaults(command=function)
        return command

    def results(command: argparse.ArgumentParser, demonstrations: bool = False) -> None:
        cached = ", for demonstrations the cache" if demonstrations else ""
        command.add_argument("--results", type=Path, metavar="DIR", help=f"folder of the records (default: results/{cached})")

    def as_json(command: argparse.ArgumentParser) -> None:
        command.add_argument("--json", action="store_true", dest="as_json", help="machine-readable output")

    command = add("run", run)
    command.add_argument("paper", metavar="PAPER", help="a paper's name; it comes before the options")
    command.add_argument("--profile", metavar="P", help="quick, cpu or paper; always to be given")
    for name, what in (("--only", "tables, rows (table2/F1), figures or claims"), ("--networks", "these networks alone")):
        command.add_argument(name, nargs="+", action="extend", default=[], metavar="NAME", help=what)
    command.add_argument("--seeds", type=_whole("seeds"), metavar="N", help="number of seeds")
    command.add_argument(
        "--minutes",
        type=_number("minutes", float, "a number above 0"),
        metavar="M",
        help="stop after so long; what is finished stays",
    )
    command.add_argument(
        "--workers", type=_whole("workers"), default=1, metavar="N", help="processes, one thread each on a CPU (default: 1)"
    )
    command.add_argument("--scheduler", metavar="ADDRESS", help="of a Dask cluster; 'local' for one of --workers processes")
    command.add_argument("--share", type=_share, metavar="I/N", help="one of N parts, for a job array: no two share a run")
    results(command, demonstrations=True)
    command.add_argument("--dry-run", action="store_true", help="print the jobs and their cost, run nothing")

    command = add("status", status)
    command.add_argument("paper", nargs="?", metavar="PAPER", help="a paper's name; all papers where absent")
    command.add_argument("--cost", action="store_true", help="expected time of what is missing as well")
    as_json(command), results(command, demonstrations=True)

    command = add("verdicts", verdicts)
    command.add_argument("paper", nargs="?", metavar="PAPER", help="a paper's name; all papers where absent")
    as_json(command), results(command)

    command = add("show", show)
    command.add_argument("what", metavar="PAPER", help="a paper's name, or the first letters of a record's key, four or more")
    command.add_argument("name", nargs="?", metavar="NAME", help="a table, its row (table3/C1), a figure or a claim")
    results(command)

    command = add("verify", verify)
    command.add_argument("keys", nargs="*", metavar="KEY", help="repeat these records and no others")
    command.add_argument(
        "--sample", type=_whole("sample"), default=3, metavar="N", help="records beside the papers' reference jobs (default: 3)"
    )
    command.add_argument("--full", action="store_true", help="whole jobs, not the first 50 updates of their runs")
    as_json(command), results(command)

    command = add("check", check)
    command.add_argument("paper", nargs="?", metavar="PAPER", help="a paper's name; all papers where absent")

    of_records = add("records", _records).add_subparsers(metavar="COMMAND", required=True)
    for name, function, what in (("pack", pack, "to be written"), ("merge", merge, "that 'records pack' wrote")):
        command = add(name, function, of_records)
        command.add_argument("file", type=Path, metavar="FILE", help=what)
        results(command)

    add("data", data_sets).add_argument("--fetch", metavar="NAME", help="download a data set through torchvision")
    return main


# ---------------------------------------------------------------- what they share


def _store(results: Path | None, demonstration: bool = False, tolerant: bool = False) -> "Store":
    """The folder that is named, else where such records belong; they may be of networks that a paper brings along."""
    from lbgap import papers
    from lbgap.records import Store

    papers.papers()
    return Store(results or paths.results(demonstration), tolerant)


def _recorded(results: Path | None, demonstration: bool = False, tolerant: bool = False) -> "Store":
    """A store to read from: a folder that is named must be there."""
    if results is not None and not results.is_dir():
        raise ValueError(f"results is {results}; accepted is a folder of records")
    return _store(results, demonstration, tolerant)


@contextmanager
def _naming_the_damaged(*stores: "Store") -> Iterator[None]:
    """Do what can be done without the records that are damaged, then name them; the exit code is 1."""
    yield
    damaged = {path: error for store in stores for path, error in store.damaged.items()}
    for error in damaged.values():
        _complain(error)
    if damaged:
        sys.exit(1)


def _plain(text: str) -> str:
    """Text for a terminal: what an argument or a file's name brings along of control characters is written out."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _say(text: str) -> None:
    print(_plain(text))


def _complain(error: BaseException) -> None:
    print(f"lbgap: {_plain(paths.in_words(error))}", file=sys.stderr)


# ---------------------------------------------------------------- commands


def run(given: argparse.Namespace) -> None:
    """Run what has no record yet; several processes under torchrun train each run in slices together."""
    from lbgap import jobs, papers
    from lbgap.workers import group

    with group() as crew:
        if crew and not crew.first:
            papers.papers()  # with the networks and data sets that they bring along
            jobs.follow(crew)
        else:
            _run(given, crew.size if crew else 1)


def _run(given: argparse.Namespace, crew: int) -> None:
    from lbgap import papers, sweep

    for name, value, plain in (("workers", given.workers, 1), ("scheduler", given.scheduler, None)):
        if crew > 1 and value != plain:
            raise ValueError(f"{name} is {value}; under torchrun accepted is {plain}")
    of = papers.get(given.paper)
    if given.profile is None:
        raise ValueError(f"profile is not given; {given.paper} accepts {', '.join(of.profiles)}")
    sweep.check_limits(given.minutes, given.workers)
    networks = {"networks": given.networks} if given.networks else {}
    chosen = papers.settings(given.paper, profile=given.profile, seeds=given.seeds, **networks)
    study, store = of.study(chosen), _store(given.results, chosen.demonstration, tolerant=True)
    jobs = study.jobs(given.only)
    if given.share:
        jobs = sweep.share(jobs, *given.share)
    with _naming_the_damaged(store):
        if given.dry_run:
            _print_plan(study, sweep.plan(jobs, store, sweep.Cache()), len(jobs), given.workers)
            return
        workers = 0 if crew > 1 else given.workers
        outcome = sweep.complete(jobs, store, minutes=given.minutes, workers=workers, scheduler=given.scheduler)
        _say(f"{outcome.done} done, {outcome.left} left, {len(outcome.failed)} failed; records in {store.folder}")
    if outcome.failed:
        sys.exit(1)


def _print_plan(study: "Study", todo: list["Task"], total: int, workers: int) -> None:
    from lbgap import cost, sweep
    from lbgap.jobs import default_device

    device, networks = default_device(), study.networks()
    for missing in sweep.missing_data(task.job for task in todo).values():
        _complain(missing)
    operations, seconds, on_a_gpu = 0, 0.0, 0.0
    ends: dict[Job, float] = {}  # when each would be done if every job had a worker at once
    for task in todo:
        job, spec = task.job, task.job.run
        operations += (own := cost.operations(job, task.until))
        seconds += (took := cost.seconds(job, device, task.until))
        ends[job] = took + max((ends.get(weights.run, 0.0) for weights in job.parents), default=0.0)
        on_a_gpu += cost.seconds(job, "cuda", task.until)
        network = networks.get(job) or networks.get(spec) or spec.model
        _say(
            f"{job.key}  {job.kind:10}  {network:11}  {spec.data.name:8}  batch {spec.batch_size:6}  "
            f"rate {spec.optimizer.learning_rate:<9.4g}  seed {spec.seed}  {own:.2e} operations  "
            f"{cost.in_words(took)}  {_variant(job)}".rstrip()
        )
    shared = max(seconds / workers, max(ends.values(), default=0.0))
    elsewhere = f", {cost.in_words(on_a_gpu)} on one GPU" if study.profile == "paper" and device == "cpu" else ""
    _say(
        f"{len(todo)} jobs to run, for {total} of profile {study.profile}; "
        f"{operations:.2e} operations; about {cost.in_words(seconds)} on one "
        f"{'GPU' if device == 'cuda' else 'CPU thread'}, {cost.in_words(shared)} with --workers {workers}{elsewhere}"
    )


# what a line of a dry run shows in a place of its own, and what says nothing of a variant
_SHOWN = {"kind", "model", "batch_size", "updates", "seed", "semantics", "evaluate_every", "phases", "start", "teacher", "of"}


def _variant(job: "Job") -> str:
    """What sets a job apart from the plain run of its network: every other field that is not at its default."""

    def fields(values: dict) -> Iterator[str]:
        for name, value in values.items():
            if isinstance(value, dict):
                yield from fields(value)
            else:
                yield str(value) if name in ("name", "kind") else f"{name} {value}"

    spec = job.run.canonical()
    del spec["data"]["name"], spec["optimizer"]["learning_rate"]
    own = {} if job is job.run else job.canonical().get("arguments", {})
    parents = (("from", job.run.start), ("labelled by", job.run.teacher))
    of = [f"{what} epoch {weights.epoch} of {weights.run.key}" for what, weights in parents if weights]
    return ", ".join([*of, *fields({k: v for k, v in spec.items() if k not in _SHOWN}), *fields(own)])


def status(given: argparse.Namespace) -> None:
    """Jobs recorded and missing, by paper, table and profile."""
    from lbgap import papers, report

    rows, stores = [], []
    for name in papers.names(given.paper):
        for profile in papers.get(name).profiles:
            demonstration = papers.settings(name, profile=profile).demonstration
            stores.append(_recorded(given.results, demonstration, tolerant=True))
            rows += report.status(name, stores[-1], (profile,), given.cost).to_dict("records")
    with _naming_the_damaged(*stores):
        if given.as_json:
            print(json.dumps(rows, indent=1))
            return
        for row in rows:
            rest = ""
            if given.cost and row["missing"]:
                from lbgap import cost

                rest = f"  about {cost.in_words(row['seconds'])} on one {'GPU' if row['profile'] == 'paper' else 'CPU thread'}"
            _say(f"{row['paper']:8} {row['profile']:6} {row['table']:12} {row['done']:4} done {row['missing']:4} missing{rest}")


def verdicts(given: argparse.Namespace) -> None:
    """Each claim's and question's verdict by scope, profile and text; its central effect with interval, unit, n and setting."""
    from lbgap import papers
    from lbgap.badges import SCOPE_WORDS, word
    from lbgap.verdicts import verdict_rows

    store = _recorded(given.results, tolerant=True)
    rows = [row for name in papers.names(given.paper) for row in verdict_rows(name, store)]
    with _naming_the_damaged(store):
        if given.as_json:
            print(json.dumps(rows, indent=1))
            return
        for row in rows:
            by_scope = ", ".join(f"{word(v, s)} ({SCOPE_WORDS[s]})" for s, v in row["scopes"].items()) or row["verdict"]
            _say(f"{row['paper']:8} {row['id']:4} {by_scope}; {row['profile']}; {row['claim']}")
            if row["effect"] is not None:
                interval = ", ".join("-" if v is None else f"{v:.4g}" for v in row["interval"])
                _say(f"{'':14}{row['central']}: {row['effect']:.4g} [{interval}] ({row['unit']}), n={row['n']}")
                _say(f"{'':14}{row['setting']} ({row['central_profile']}, {row['central_verdict']})")
            if row["reason"]:
                _say(f"{'':14}{row['reason']}")


def show(given: argparse.Namespace) -> None:
    """The records behind a table, figure or claim, every seed's value and key; or one record."""
    from lbgap import trace

    for line in trace.text(given.what, given.name, _recorded(given.results)).splitlines():
        _say(line)


def verify(given: argparse.Namespace) -> None:
    """Repeat the papers' reference jobs and some other records, and compare."""
    from lbgap.verify import verify as checks_of

    store, checks = _recorded(given.results, tolerant=True), []
    with _naming_the_damaged(store):
        for check in checks_of(store, given.sample, given.full, keys=given.keys):
            checks.append(check)
            if not given.as_json:
                found = "" if check.difference is None else f"  {check.compared} within {check.difference:.1e}"
                _say(f"{check.key}  {check.kind:10}  {check.verdict}{found}  {check.note}".rstrip())
        if given.as_json:
            print(json.dumps([check.as_dict() for check in checks], indent=1))
    if any(check.verdict == "differs" for check in checks):
        sys.exit(1)
    if all(check.verdict == "skipped" for check in checks):
        raise ValueError(f"results is {store.folder}, of which nothing could be repeated here; accepted is a folder of records")


def check(given: argparse.Namespace) -> None:
    """Hold papers to the contract that they are shown by, and say what they do not keep."""
    from lbgap import papers

    faults = [(name, fault) for name in papers.names(given.paper) for fault in papers.faults(papers.get(name))]
    for name, fault in faults:
        _say(f"{name}: {fault}")
    if faults:
        sys.exit(1)
    _say(f"{', '.join(papers.names(given.paper))}: nothing to mend")


def _records(given: argparse.Namespace) -> None:
    """All records in one file, and back."""


def pack(given: argparse.Namespace) -> None:
    """Write every record into one file; where one is damaged, nothing."""
    from lbgap.records import pack as packed

    _say(f"{packed(_recorded(given.results), given.file)} records in {given.file}")


def merge(given: argparse.Namespace) -> None:
    """Add the records of one file; where numbers differ the record that is there stays, and the exit code is 1."""
    from lbgap.records import merge as merged

    store = _store(given.results, tolerant=True)
    with _naming_the_damaged(store):
        out = merged(store, given.file)
        _say(f"{len(out.added)} added, {len(out.same)} already there, {len(out.conflicts)} in conflict")
        for key in out.conflicts:
            _say(f"conflict: {key} (the record that is there stays)")
    if out.conflicts:
        sys.exit(1)


def data_sets(given: argparse.Namespace) -> None:
    """What is there, where it is looked for, how to get the rest."""
    from lbgap import data, papers

    papers.papers()  # with the data sets that they bring along
    if given.fetch is not None:
        _say(f"{given.fetch} is under {data.fetch(given.fetch)}")
        return
    for name, source in data.SOURCES.items():
        if not name.endswith(".inputs"):  # the same files
            _say(f"{name:15} {source.n_train:9,} / {source.n_test:9,}  {data.available(name)}")


def main() -> None:
    """Run the command line; bad input, and a worker that was killed, end in one sentence and exit code 2."""
    try:
        given = parser().parse_args(sys.argv[1:] or ["--help"])
        given.command(given)
        sys.stdout.flush()
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # whoever reads has seen enough, as in ``lbgap status | head``
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except (_Refused, ValueError, OSError, RuntimeError) as error:
        _complain(error)
        sys.exit(2)
    sys.exit(0)
