"""The command line: ``python -m lbgap``."""

import json
import sys
from itertools import pairwise
from pathlib import Path
from typing import Annotated

import typer

from lbgap import cost, data, papers, paths, report, sweep
from lbgap import records as record_files
from lbgap import verify as verification
from lbgap.jobs import default_device
from lbgap.papers.paper import Study
from lbgap.records import Store

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, help=__doc__)
records_app = typer.Typer(help="One file out, one file in.")
app.add_typer(records_app, name="records")

Results = Annotated[Path | None, typer.Option(help="Folder of the records (default: results/, for profile quick the cache).")]
Json = Annotated[bool, typer.Option("--json", help="Machine-readable output.")]
PaperName = Annotated[str | None, typer.Argument(help="A paper's name; all papers where absent.")]


def _store(results: Path | None, demonstration: bool = False) -> Store:
    """The folder that is named, else where such records belong."""
    return Store(results or paths.results(demonstration))


def _recorded(results: Path | None, demonstration: bool = False) -> Store:
    """A store to read from: a folder that is named must be there."""
    if results is not None and not results.is_dir():
        raise ValueError(f"results is {results}; accepted is a folder of records")
    return _store(results, demonstration)


@app.command()
def run(
    paper: Annotated[str, typer.Argument(help="A paper's name.")],
    profile: Annotated[str | None, typer.Option(help="quick, cpu or paper; always to be given.")] = None,
    only: Annotated[list[str] | None, typer.Option(help="Tables, rows (table2/F1), figures or claims.")] = None,
    networks: Annotated[list[str] | None, typer.Option(help="Restrict to these networks.")] = None,
    seeds: Annotated[int | None, typer.Option(help="Number of seeds.")] = None,
    minutes: Annotated[float | None, typer.Option(help="Stop after so long; what is finished stays.")] = None,
    workers: Annotated[int, typer.Option(help="Processes, one thread each on a CPU.")] = 1,
    results: Results = None,
    dry_run: Annotated[bool, typer.Option(help="Print the jobs and their cost, run nothing.")] = False,
) -> None:
    """Run what has no record yet."""
    of = papers.get(paper)
    if profile is None:
        raise ValueError(f"profile is not given; {paper} accepts {', '.join(of.profiles)}")
    if minutes is not None and not minutes > 0:
        raise ValueError(f"minutes is {minutes:g}; accepted is a number above 0")
    if workers < 1:
        raise ValueError(f"workers is {workers}; accepted is 1 or more")
    chosen = papers.settings(paper, profile=profile, seeds=seeds, **({"networks": networks} if networks else {}))
    study, store = of.study(chosen), _store(results, chosen.demonstration)
    jobs = study.jobs(only or ())
    if dry_run:
        _print_plan(study, [t.job for t in sweep.plan(jobs, store, sweep.Cache())], len(jobs), workers)
        return
    outcome = sweep.run(jobs, store, minutes=minutes, workers=workers)
    typer.echo(f"{outcome.done} done, {outcome.left} left, {len(outcome.failed)} failed; records in {store.folder}")
    if outcome.failed:
        raise typer.Exit(1)


def _print_plan(study: Study, todo: list, total: int, workers: int) -> None:
    device = default_device()
    for missing in sweep.missing_data(todo).values():
        typer.echo(missing, err=True)
    for job in todo:
        spec = job.run
        typer.echo(
            f"{job.key}  {job.kind:9}  {spec.model:10}  {spec.data.name:8}  batch {spec.batch_size:6}  seed {spec.seed}"
            f"  {cost.operations(job):.2e} operations  {cost.in_words(cost.seconds(job, device))}"
        )
    seconds = sum(cost.seconds(job, device) for job in todo)
    typer.echo(
        f"{len(todo)} jobs to run, for {total} of profile {study.profile}; "
        f"{sum(map(cost.operations, todo)):.2e} operations; about {cost.in_words(seconds)} on one "
        f"{'GPU' if device == 'cuda' else 'CPU thread'}, {cost.in_words(seconds / workers)} with --workers {workers}"
    )


@app.command()
def status(paper: PaperName = None, results: Results = None, as_json: Json = False) -> None:
    """Jobs recorded and missing, by paper, table and profile."""
    rows = []
    for name in papers.names(paper):
        for profile in papers.get(name).profiles:
            demonstration = papers.settings(name, profile=profile).demonstration
            rows += report.status(name, _recorded(results, demonstration), (profile,)).to_dict("records")
    if as_json:
        typer.echo(json.dumps(rows, indent=1))
        return
    for row in rows:
        where = "GPU" if row["profile"] == "paper" else "CPU thread"
        rest = f"  about {cost.in_words(row['seconds'])} on one {where}" if row["missing"] else ""
        typer.echo(
            f"{row['paper']:8} {row['profile']:6} {row['table']:12} {row['done']:4} done {row['missing']:4} missing{rest}"
        )


@app.command()
def verdicts(paper: PaperName = None, results: Results = None, as_json: Json = False) -> None:
    """Claim, verdict, effect, interval, n, profile."""
    store = _recorded(results)
    rows = [row for name in papers.names(paper) for row in report.verdict_rows(name, store)]
    if as_json:
        typer.echo(json.dumps(rows, indent=1))
        return
    for row in rows:
        numbers = (
            f"{row['effect']:.4g} [{', '.join('-' if v is None else f'{v:.4g}' for v in row['interval'])}]"
            if row["effect"] is not None
            else row["reason"]
        )
        typer.echo(f"{row['paper']:8} {row['id']:4} {row['verdict']:12} {row['profile']:6} n={row['n']}  {numbers}")


@app.command()
def verify(
    sample: Annotated[int, typer.Option(help="How many runs to repeat.")] = 3,
    full: Annotated[bool, typer.Option(help="Whole runs, not their first 50 updates.")] = False,
    results: Results = None,
    as_json: Json = False,
) -> None:
    """Repeat committed runs and compare."""
    checks = []
    for check in verification.verify(_recorded(results), sample, full):
        checks.append(check)
        if not as_json:
            loss = "" if check.loss_difference is None else f"  losses within {check.loss_difference:.1e}"
            typer.echo(f"{check.key}  {check.verdict}{loss}  {check.note}".rstrip())
    if as_json:
        typer.echo(json.dumps([c.as_dict() for c in checks], indent=1))
    elif not checks:
        typer.echo("no training run is recorded on this kind of device")
    if any(c.verdict == "differs" for c in checks):
        raise typer.Exit(1)


@records_app.command()
def pack(file: Path, results: Results = None) -> None:
    """Write every record into one file."""
    typer.echo(f"{record_files.pack(_recorded(results), file)} records in {file}")


@records_app.command()
def merge(file: Path, results: Results = None) -> None:
    """Add the records of one file; where numbers differ the older record stays and is listed."""
    out = record_files.merge(_store(results), file)
    typer.echo(f"{len(out.added)} added, {len(out.same)} already there, {len(out.conflicts)} in conflict")
    for key in out.conflicts:
        typer.echo(f"conflict: {key} (the older record stays)")


@app.command(name="data")
def data_sets(fetch: Annotated[str | None, typer.Option(help="Download a data set through torchvision.")] = None) -> None:
    """What is there, where it is looked for, how to get the rest."""
    if fetch:
        typer.echo(f"{fetch} is under {data.fetch(fetch)}")
        return
    for name, source in data.SOURCES.items():
        if not name.endswith(".inputs"):  # the same files
            typer.echo(f"{name:15} {source.n_train:9,} / {source.n_test:9,}  {data.available(name)}")


def _spelled_out(arguments: list[str]) -> list[str]:
    """``--only A B`` as ``--only A --only B``, up to the next option or a paper: the parser takes one value an option."""
    out, option = [], None
    for argument in arguments:
        name, _, value = argument.partition("=")
        if argument.startswith("-"):
            option = name if name in ("--only", "--networks") else None
            out += [name, value] if option and value else [argument]
        elif option and out[-1] != option:
            if argument in papers.papers():
                option = None
            out += [option, argument] if option else [argument]
        else:
            out.append(argument)
    return out


# the base of what the parser raises, which has no public name of its own
UsageError = typer.BadParameter.__base__


def _sentence(error: UsageError, arguments: list[str]) -> str:
    """What the parser says; of a value, in the words of the other errors."""
    said, following = " ".join(error.format_message().split()), dict(pairwise(arguments))
    for option in getattr(getattr(error, "param", None), "opts", ()):
        if option in following:
            wanted = said.partition(": ")[2].replace("Input should be", "accepted is").partition(",")[0]
            return f"{option.lstrip('-')} is '{following[option]}'; {wanted}"
    return said


def main() -> None:
    """Run the command line; bad input, and a worker that was killed, end in one sentence and exit code 2."""
    arguments = sys.argv[1:] or ["--help"]
    try:
        code = app(_spelled_out(arguments), standalone_mode=False)
    except typer.Abort:  # Ctrl-C
        code = 130
    except UsageError as error:
        print(f"lbgap: {_sentence(error, arguments)}", file=sys.stderr)
        code = 2
    except (ValueError, OSError, RuntimeError) as error:
        print(f"lbgap: {error}", file=sys.stderr)
        code = 2
    sys.exit(code)
