"""The commands that run a model: fit, validate and test, read from a stack of config files."""

from __future__ import annotations

import io
import logging
import re
import warnings
from argparse import Action
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, redirect_stdout, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import yaml
from jsonargparse import ActionConfigFile, Namespace  # pyright: ignore[reportPrivateImportUsage]
from lightning import Callback, Trainer
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.utilities.exceptions import SIGTERMException

from seqrec.data.datamodule import SequenceDataModule
from seqrec.data.errors import InputError, nearest
from seqrec.data.folders import name_of
from seqrec.help_text import HelpFormatter
from seqrec.run_words import run_first, with_help_last, with_nulls
from seqrec.studies.locks import held
from seqrec.training.checkpoints import MovedCheckpoint, WholeCheckpoints
from seqrec.training.ranking_task import RankingTask
from seqrec.training.record import RunRecord, StepSeed

# Lightning speaks to its own authors here, of loaders that are fast enough without workers, of models that count and
# have nothing to optimise, or of a paid service.
QUIET = (".*isinstance.treespec.*", ".*does not have many workers.*", ".*`?configure_optimizers` returned `None`.*")
logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(lambda said: "litlogger" not in said.getMessage())

DESCRIPTIONS = {
    "fit": "Train a model and keep its best checkpoint on validation NDCG@10.\n\n"
    "  seqrec fit --config configs/data/beauty.yaml --config configs/model/sasrec.yaml --run runs/beauty-sasrec\n"
    "  seqrec fit --config runs/beauty-sasrec/config.yaml --ckpt_path last        continue after a kill\n"
    "  seqrec fit --config runs/beauty-sasrec/config.yaml --starts_from bundles/beauty --run runs/next\n"
    "                                                                       begin from an exported model",
    "validate": "Rank the validation targets of a run.\n\n  seqrec validate --run runs/beauty-sasrec",
    "test": "Rank the test targets of a run; writes result.json and ranks.parquet into its folder.\n\n"
    "  seqrec test --run runs/beauty-sasrec",
}
USAGES = {"fit": "--config FILE [--config FILE …] [--run FOLDER]", "validate": "--run FOLDER", "test": "--run FOLDER"}
SKIPPED = {
    "fit": {"model", "train_dataloaders", "val_dataloaders", "datamodule", "weights_only"},
    "validate": {"model", "dataloaders", "datamodule", "weights_only"},
    "test": {"model", "dataloaders", "datamodule", "weights_only"},
}
LATEST = "runs/latest"
UNWRITTEN = ("starts_from",)  # where it is null, as in the configs of runs before it could be said
TRAINER_DEFAULTS = {
    "max_epochs": 200,
    "use_distributed_sampler": False,  # the data module deals out the batches itself
    "num_sanity_val_steps": 0,
    "log_every_n_steps": 10,
}


@contextmanager
def _tells_what_is_slow() -> Iterator[None]:
    """An op whose faster kernel refuses says so, once: which one runs instead, and why."""
    ops, handler = logging.getLogger("seqrec.ops"), logging.StreamHandler()
    before = ops.level
    ops.addHandler(handler)
    ops.setLevel(logging.INFO)
    try:
        yield
    finally:
        ops.removeHandler(handler)
        ops.setLevel(before)


class FinishedRun(Action):
    """Reads the config that an earlier fit left in the folder of its run."""

    def __call__(self, parser: Any, cfg: Any, values: Any, option_string: str | None = None) -> None:
        config = Path(values) / "config.yaml"
        if option_string is not None:
            if not config.is_file():
                raise FileNotFoundError(
                    f"{config} does not exist, so {values} is not the folder of a run; name another with --run, or "
                    f"run `seqrec fit --run {values}` with a config first."
                )
            asked = cfg.get("ckpt_path")
            ActionConfigFile.apply_config(parser, cfg, "config", str(config))
            cfg["ckpt_path"] = asked  # where an earlier fit went on from says nothing of what is to be looked at
        cfg["run"] = str(values)


def complete_config(args: Sequence[str]) -> dict[str, Any]:
    """The complete config of a fit that is told this; nothing is built or trained."""
    with redirect_stdout(io.StringIO()) as printed, suppress(SystemExit):
        SeqrecCLI("fit", [*args, "--print_config"])
    config = yaml.safe_load(printed.getvalue())
    _name_the_data(config, name_of(Path(str(config["data"]["prepared"]))))
    return config


def differing(recorded: Mapping[str, Any], now: Mapping[str, Any], within: str = "") -> Iterator[str]:
    """The keys of which a recorded config says something else than a complete one does now.

    A key that only one of both has is of another version of the code and does not count, unless it is one that is not
    written down where it is null.
    """
    for name in now:
        old = recorded.get(name)
        if old == now[name] or name not in {*recorded, *UNWRITTEN}:
            continue
        if isinstance(old, Mapping) and isinstance(now[name], Mapping):
            yield from differing(old, now[name], f"{within}{name}.")
        else:
            yield f"{within}{name}"


def _name_the_data(part: Any, name: str) -> None:
    """Put the name of the data in the place of ``{data}`` wherever a config names text vectors."""
    if isinstance(part, (list, tuple)):
        for each in part:
            _name_the_data(each, name)
    elif isinstance(part, (dict, Namespace)):
        for key, value in list(part.items()):
            if key.rpartition(".")[2] == "vectors" and isinstance(value, str):  # a Namespace has dotted keys
                part[key] = value.replace("{data}", name)
            elif not isinstance(value, str):
                _name_the_data(value, name)


class SeqrecCLI(LightningCLI):
    """Lightning's command line for one of fit, validate and test.

    Args:
        command: which of them.
        args: what follows it on the command line.
        watchers: callbacks beside those of the config.
    """

    def __init__(self, command: str, args: list[str], watchers: Sequence[Callback] = ()) -> None:
        self.command, self.watchers = command, watchers
        for quiet in QUIET:  # of every command anew: filters end with the command that set them
            warnings.filterwarnings("ignore", message=quiet)
        names_a_run = {word.split("=")[0] for word in args} & {"--run", "--config", "--help", "-h"}
        words = list(args) if command == "fit" else run_first(args)
        given = [command, *([] if command == "fit" or names_a_run else [f"--run={LATEST}"]), *words]
        self.given = with_help_last(list(with_nulls(given)))
        super().__init__(
            RankingTask,
            SequenceDataModule,
            save_config_callback=None,
            trainer_defaults=dict(TRAINER_DEFAULTS),
            seed_everything_default=42,
            parser_kwargs={
                "prog": "seqrec",
                "exit_on_error": False,
                "formatter_class": HelpFormatter,
                command: {
                    "exit_on_error": False,
                    "usage": f"seqrec {command} {USAGES[command]} [--KEY VALUE …]",
                    "description": DESCRIPTIONS[command],
                },
            },
            subclass_mode_model=True,
            args=self.given,
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
        )

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]  # only the parser in use is built
        return {self.command: SKIPPED[self.command]}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        if self.command == "fit":
            parser.add_argument("--run", type=str, default=LATEST, help="Folder that the run is kept in.")
        else:
            parser.add_argument(
                "--run", action=FinishedRun, default=LATEST, help="Folder of a run; its config is read."
            )
        parser.add_argument(
            "--starts_from",
            type=str | None,
            default=None,
            help="Bundle of an earlier model (`seqrec export`) whose weights training begins from, items by raw id.",
        )
        parser.add_lightning_class_args(EarlyStopping, "early_stopping")
        parser.set_defaults(
            {
                "early_stopping.monitor": "val/ndcg@10",
                "early_stopping.mode": "max",
                "early_stopping.patience": 10,
                "model": {"class_path": "seqrec.training.task.NextItemTask"},
            }
        )
        parser.link_arguments("data.catalog", "model.init_args.catalog", apply_on="instantiate")
        parser.link_arguments("seed_everything", "data.seed", compute_fn=int)

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        self.config = parser.parse_args(self.given)  # without Lightning's warning that sys.argv holds arguments, too
        chosen = self.config[self.command]
        if isinstance(chosen.seed_everything, bool):
            raise ValueError(
                f"seed_everything is {str(chosen.seed_everything).lower()}; give the number that draws are to begin "
                "with, e.g. --seed_everything 42."
            )
        _name_the_data(chosen, name_of(Path(str(chosen.data.prepared))))

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        chosen = self.config[self.command]
        kept = chosen.clone()
        kept.ckpt_path = None  # what a run is does not depend on where it went on
        for name in UNWRITTEN:
            if kept[name] is None:
                del kept[name]
        text = self._parser(self.command).dump(kept, skip_none=False)
        folder = Path(chosen.run)
        callbacks = [
            RunRecord(yaml.safe_load(text), text),
            StepSeed(int(chosen.seed_everything)),
            MovedCheckpoint(
                folder / "checkpoints",
                filename="best",
                monitor=chosen.early_stopping.monitor,
                mode=chosen.early_stopping.mode,
                save_on_train_epoch_end=True,
                enable_version_counter=False,
            ),
            # One of its own: Lightning's save_last follows the best checkpoint, so it would skip epochs that are worse.
            MovedCheckpoint(
                folder / "checkpoints", filename="last", save_on_train_epoch_end=True, enable_version_counter=False
            ),
        ]
        settings = self._get(self.config_init, "trainer")
        settings["callbacks"] = [*(settings["callbacks"] or []), *callbacks, *self.watchers]
        if settings["logger"] is None:
            settings["logger"] = self.command == "fit" and [
                TensorBoardLogger(folder, name="", version="logs"),
                CSVLogger(folder / "logs", name="csv"),
            ]
        try:
            trainer = super().instantiate_trainer(default_root_dir=str(folder), **kwargs)
        except MisconfigurationException as refusal:
            if not re.search("accelerator|backend|devices", str(refusal)):
                raise
            raise ValueError(
                f"There is no trainer with trainer.accelerator {chosen.trainer.accelerator} and trainer.devices "
                f"{chosen.trainer.devices}: {refusal} Leave both out to use what this machine has, or correct them."
            ) from refusal
        if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:  # Lightning's own choice, nobody else's
            trainer.strategy.checkpoint_io = WholeCheckpoints()
        return trainer

    def before_fit(self) -> None:
        """Refuses what would fail later, after an epoch is spent or what an earlier run left in this folder is gone."""
        self._start()
        chosen = self.config[self.command]
        if (path := self._checkpoint(chosen.ckpt_path)) is None:
            for part in self.model.modules():
                if (demand := getattr(part, "demand_files", None)) is not None:
                    demand()
        else:
            done = torch.load(path, map_location="cpu", weights_only=True, mmap=True)["epoch"] + 1
            most = chosen.trainer.max_epochs
            if most is not None and 0 <= most < done:
                raise ValueError(
                    f"{path} has trained {done} epochs and trainer.max_epochs is {most}, which counts from the first; "
                    f"give {done} or more."
                )
        monitor = self.config[self.command].early_stopping.monitor
        logged = ["train/loss", *(f"val/{name}@{k}" for k in self.model.cutoffs for name in ("recall", "ndcg", "mrr"))]
        # A task of one's own may log what it likes.
        if type(self.model).__module__.startswith("seqrec.") and monitor not in [*logged, "val/count"]:
            raise ValueError(
                f"early_stopping.monitor is '{monitor}', which is never logged; {nearest(monitor, logged)}."
            )

    def _start(self) -> None:
        """Begins with the weights of an earlier model, where one is named and training does not go on anyway.

        Raises:
            ValueError: it goes on, and the checkpoint began from something else.
        """
        chosen = self.config[self.command]
        if chosen.starts_from is None:
            return
        if (path := self._checkpoint(chosen.ckpt_path)) is not None:
            began = torch.load(path, map_location="cpu", weights_only=True, mmap=True).get("starts_from") or {}
            if began.get("bundle") != chosen.starts_from:
                raise ValueError(
                    f"{path} began from {began.get('bundle', 'nothing')}, not from {chosen.starts_from}; leave out "
                    "--starts_from to go on, or --ckpt_path to begin."
                )
            return
        from seqrec.warm_start import start_from  # bundles need more than training does

        recommender = self.model.recommender
        began = start_from(recommender, Path(chosen.starts_from), self.datamodule.trained_on)
        self.model.starts_from = asdict(began)
        if not self.trainer.is_global_zero:
            return
        print(f"Starts from {began.bundle}, which knows {began.known_items:,} of {len(recommender.catalog):,} items.")
        for names, told in ((began.fresh, "Begin anew"), (began.unused, "Not used of it")):
            if names:
                print(f"{told}: {', '.join(names[:5])}{f' and {len(names) - 5} more' if len(names) > 5 else ''}.")
        if began.learned_before:
            warnings.warn(
                f"{began.bundle} learned from other events than this run trains on; if what is asked for in validation "
                "or test is among them, figures are too good, so results of this run stand in tables of their own.",
                stacklevel=2,
            )

    def after_fit(self) -> None:
        """Says where the run lies, how it ended and what comes next."""
        chosen, best = self.config[self.command], self.trainer.checkpoint_callback
        if not self.trainer.is_global_zero or self.trainer.interrupted:
            return
        print(f"The run lies in {chosen.run}.")
        if isinstance(best, ModelCheckpoint) and best.best_model_score is not None and best.best_model_path:
            epoch = torch.load(best.best_model_path, map_location="cpu", weights_only=True)["epoch"] + 1
            stopping = self.trainer.early_stopping_callback
            early = isinstance(stopping, EarlyStopping) and stopping.stopped_epoch > 0
            why = "early stopping ended it" if early else "early stopping did not end it"
            score = f"{best.monitor} {best.best_model_score:.4f}"
            print(f"Best epoch: {epoch} of {self.trainer.current_epoch}, {score}; {why}.")
        print(f"Next: seqrec test --run {chosen.run}")

    def fit(self, model: RankingTask, datamodule: SequenceDataModule, ckpt_path: str | None) -> None:
        with self._alone(), _tells_what_is_slow():
            try:
                self.trainer.fit(model, datamodule=datamodule, ckpt_path=self._checkpoint(ckpt_path), weights_only=True)
            except SystemExit as stopped:
                if isinstance(stopped, SIGTERMException) or not self.trainer.interrupted:
                    raise
                run = Path(self.config[self.command].run)
                if (run / "checkpoints" / "last.ckpt").is_file():
                    print(f"Go on with: seqrec fit --config {run / 'config.yaml'} --ckpt_path last")
                raise KeyboardInterrupt from stopped

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Holds the folder of the run, where its file system has locks: two fits would take each other's checkpoints.

        The devices beside the first belong to the fit that the first holds it for.
        """
        run = self.config[self.command].run
        with ExitStack() as held_until:
            if self.trainer.is_global_zero:
                with suppress(InputError):  # no locks
                    if not held_until.enter_context(held(Path(run) / ".lock")):
                        raise ValueError(f"Another fit is at work in {run}; wait for it, or name another --run.")
            yield

    def validate(
        self, model: RankingTask, datamodule: SequenceDataModule, ckpt_path: str | None, verbose: bool = True
    ) -> None:
        path = self._checkpoint(ckpt_path or "best")
        self.trainer.validate(model, datamodule=datamodule, ckpt_path=path, weights_only=True, verbose=verbose)

    def test(
        self, model: RankingTask, datamodule: SequenceDataModule, ckpt_path: str | None, verbose: bool = True
    ) -> None:
        path = self._checkpoint(ckpt_path or "best")
        self.trainer.test(model, datamodule=datamodule, ckpt_path=path, weights_only=True, verbose=verbose)

    def _checkpoint(self, name: str | None) -> str | None:
        """The file behind ``best`` or ``last`` of this run; any other path is taken as it is."""
        if name is None:
            return None
        folder = Path(self.config[self.command].run) / "checkpoints"
        path = {"best": folder / "best.ckpt", "last": folder / "last.ckpt"}.get(name, Path(name))
        if not path.is_file():
            raise FileNotFoundError(f"{path} does not exist. Run `seqrec fit` first, or name another --ckpt_path.")
        return str(path)
