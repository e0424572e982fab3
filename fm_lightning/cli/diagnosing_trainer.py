"""``fm-lightning diagnose -c CONFIG | RUN_DIR``: relates the energies of a compared run to density, semantics and copying."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from torch import nn

from fm_lightning.adapters.checkpoints import read_checkpoint
from fm_lightning.comparison.rows import BASE
from fm_lightning.data import FlowData
from fm_lightning.diagnosis.diagnose import FOLDER, diagnose, second_space, write
from fm_lightning.diagnosis.subject import read_others, read_subject
from fm_lightning.errors import UserError
from fm_lightning.guidance import Guidance
from fm_lightning.hashes import weights_hash
from fm_lightning.report.diagnosis.page import draw
from fm_lightning.table.evaluation import Evaluation
from fm_lightning.training.module import FlowMatching
from fm_lightning.training.tracking import AppendingCSVLogger, read_series
from fm_lightning.training.trainer import FlowTrainer, run_facts


class DiagnosingTrainer(FlowTrainer):
    """FlowTrainer with the verb ``diagnose``."""

    def diagnose(
        self,
        model: FlowMatching,
        datamodule: FlowData,
        ckpt_path: str | None = None,
        probes: int = 256,
        groups: int = 5,
        features: str | None = None,
        clip: str | None = None,
        class_names: list[str] | str | None = None,
        classifier: nn.Module | None = None,
        pdf: bool = False,
    ) -> Path:
        """Relates the energies of the run's plain samples to density, semantics and copying; returns the page.

        Args:
            model: the module.
            datamodule: the data.
            ckpt_path: the checkpoint that was compared; by default the run's last one.
            probes: samples that are sampled again, for likelihood, commitment and power.
            groups: quantile groups of the energies.
            features: a second feature space for support, by the name of its distance; by default the
                comparison's.
            clip: CLIP model that judges semantics: a folder, or a name on the Hugging Face hub.
            class_names: names for CLIP's prompts, in the order of the labels; by default those of the data's source,
                "imagenet" for ImageNet's.
            classifier: network that judges semantics, from samples in the model's space to logits.
            pdf: whether every figure is written as PDF, too.

        Raises:
            UserError: no comparison of these weights, more than one process, or options out of range.
        """
        if self.world_size > 1:
            raise UserError(f"diagnose runs on one device, not on {self.world_size}.", "Use --trainer.devices 1")
        evaluation = Evaluation.open(self.default_root_dir)
        self._prepare(model, datamodule, ckpt_path)
        if weights_hash(model.net) != evaluation.manifest.identity.get("weights"):
            problem = f"{evaluation.folder} was sampled with other weights than {ckpt_path or model.weights}."
            raise UserError(problem, "Run fm-lightning test with this configuration first.")
        if clip is not None and not datamodule.num_classes:
            raise UserError(f"`clip={clip}` needs a model with labels.", "Remove --clip, or pass --classifier CLASS")
        with self.precision_plugin.forward_context():
            schedule = model.plan.prediction[BASE].schedule
            guided = replace(schedule.guidance or Guidance(), record=True).of(model.net)
            schedule = replace(schedule, guidance=None)  # which other fields, the closed form among them, do not have
            device = self.strategy.root_device
            subject = read_subject(evaluation, datamodule, guided, schedule, device, model.base_seed)
            results, arrays = diagnose(
                subject,
                probes=probes,
                groups=groups,
                extractor=second_space(evaluation, features),
                clip=clip,
                class_names=class_names,
                classifier=classifier,
                series=self._series(),
                others=read_others(evaluation, subject),
            )
        facts = run_facts(self, datamodule)
        kept = ("name", "created", "command", "versions", "hardware", "step", "space", "training_images")
        results = {key: facts[key] for key in kept} | {"data": type(datamodule).__name__} | results
        folder = Path(self.default_root_dir) / FOLDER
        write(folder, results, arrays)
        page = draw(folder, results, arrays, pdf=pdf)
        print(f"\nDiagnosis: {page}")
        return page

    def _prepare(self, model: FlowMatching, datamodule: FlowData, ckpt_path: str | None) -> None:
        """Sets up weights, data and device as ``test`` does."""
        self.strategy.connect(model)
        model.trainer = datamodule.trainer = self
        self.datamodule = datamodule
        datamodule.prepare_data()
        datamodule.setup("test")
        if ckpt_path is not None:
            checkpoint = read_checkpoint(ckpt_path)
            model.load_state_dict(checkpoint["state_dict"])
            self.tested_step = checkpoint["global_step"]
        model.to(self.strategy.root_device).eval().requires_grad_(False)

    def _series(self) -> dict[str, list[tuple[int, float]]]:
        loggers = [logger for logger in self.loggers if isinstance(logger, AppendingCSVLogger)]
        return read_series(loggers[0].path if loggers else Path(self.default_root_dir) / "metrics.csv")
