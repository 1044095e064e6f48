"""What commands, notebooks and the explorer share: a model that is open, and all that can be done with it.

Nothing here prints. Results hold tensors, and records of how they were made; `save` writes them. How far long work has
come is told through a callback, see `stylegan_cli.progress`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..inversion.directions import Directions
from ..metrics.measure import Results, measure
from ..metrics.registry import resolve
from ..progress import Progress, silent
from ..snapshot import open_training_set
from . import attribute, edit, generate, interpolate, mix, noise, project
from .attribute import AttributeRequest, AttributeResult, AttributeTask
from .edit import EditRequest, EditResult, FindRequest, ShowRequest, ShowResult
from .generate import GenerateRequest, GenerateResult
from .interpolate import InterpolateRequest, InterpolateResult
from .mix import MixRequest, MixResult
from .model import Model, Picture, Pictures
from .noise import NoiseRequest, NoiseResult
from .project import ProjectRequest, ProjectResult, ProjectTask

__all__ = [
    "AttributeRequest",
    "AttributeResult",
    "AttributeTask",
    "EditRequest",
    "EditResult",
    "FindRequest",
    "GenerateRequest",
    "GenerateResult",
    "InterpolateRequest",
    "InterpolateResult",
    "MixRequest",
    "MixResult",
    "NoiseRequest",
    "NoiseResult",
    "Picture",
    "Pictures",
    "ProjectRequest",
    "ProjectResult",
    "ProjectTask",
    "Session",
    "ShowRequest",
    "ShowResult",
]


class Session(Model):
    """A model that is open. Every method takes a request, or the fields of one by name."""

    def generate(
        self,
        request: GenerateRequest | None = None,
        progress: Progress = silent,
        **fields: Any,  # of a GenerateRequest
    ) -> GenerateResult:
        """Images of seeds, or of latents in a file."""
        with self.chosen_kernels():
            return generate.generate(self, request or GenerateRequest(**fields), progress)

    def mix(
        self,
        request: MixRequest | None = None,
        progress: Progress = silent,
        **fields: Any,  # of a MixRequest
    ) -> MixResult:
        """A grid of images with the styles of rows and columns."""
        with self.chosen_kernels():
            return mix.mix(self, request or MixRequest(**fields), progress)

    def interpolate(
        self,
        request: InterpolateRequest | None = None,
        progress: Progress = silent,
        **fields: Any,  # of an InterpolateRequest
    ) -> InterpolateResult:
        """A film of a walk through the latent space."""
        with self.chosen_kernels():
            return interpolate.interpolate(self, request or InterpolateRequest(**fields), progress)

    def noise_study(
        self,
        request: NoiseRequest | None = None,
        progress: Progress = silent,
        **fields: Any,  # of a NoiseRequest
    ) -> NoiseResult:
        """What noise does to images."""
        with self.chosen_kernels():
            return noise.noise_study(self, request or NoiseRequest(**fields), progress)

    def find_directions(
        self,
        request: FindRequest | None = None,
        progress: Progress = silent,
        **fields: Any,  # of a FindRequest
    ) -> Directions:
        """Directions in the latent space, for `show_directions` and `edit`."""
        with self.chosen_kernels():
            return edit.find_directions(self, request or FindRequest(**fields), progress)

    def show_directions(
        self,
        request: ShowRequest | None = None,
        progress: Progress = silent,
        **fields: Any,  # of a ShowRequest
    ) -> ShowResult:
        """A strip for each direction: a row for each image, a column for each strength."""
        with self.chosen_kernels():
            return edit.show_directions(self, request or ShowRequest(**fields), progress)

    def edit(
        self,
        request: EditRequest | None = None,
        progress: Progress = silent,
        **fields: Any,  # of an EditRequest
    ) -> EditResult:
        """Images moved along directions."""
        with self.chosen_kernels():
            return edit.edit(self, request or EditRequest(**fields), progress)

    def prepare_projection(
        self,
        request: ProjectRequest | None = None,
        **fields: Any,  # of a ProjectRequest
    ) -> ProjectTask:
        """The files of a request, read and found good: for `project`, which takes minutes."""
        with self.chosen_kernels():
            return project.prepare_projection(self, request or ProjectRequest(**fields))

    def project(
        self,
        request: ProjectRequest | ProjectTask | None = None,
        progress: Progress = silent,
        **fields: Any,  # of a ProjectRequest
    ) -> ProjectResult:
        """The latents whose images are nearest given ones. Ctrl-C ends the search with what was found."""
        task = request if isinstance(request, ProjectTask) else self.prepare_projection(request, **fields)
        with self.chosen_kernels():
            return project.project(self, task, progress)

    def tune(
        self,
        result: ProjectResult,
        steps: int,
        progress: Progress = silent,
    ) -> ProjectResult:
        """A projection with the generator tuned around it. Ctrl-C ends it with what was reached."""
        with self.chosen_kernels():
            return project.tune_projection(result, steps, progress)

    def prepare_attribution(
        self,
        request: AttributeRequest | None = None,
        **fields: Any,  # of an AttributeRequest
    ) -> AttributeTask:
        """The files of a request, read and found good: for `calibrate` and `attribute`, which take minutes."""
        with self.chosen_kernels():
            return attribute.prepare_attribution(self, request or AttributeRequest(**fields))

    def calibrate(
        self,
        task: AttributeTask,
        progress: Progress = silent,
    ) -> AttributeTask:
        """The same, with how near projections of the model's images and of real ones come; that is kept."""
        with self.chosen_kernels():
            return attribute.measure_both_kinds(self, task, progress)

    def attribute(
        self,
        request: AttributeRequest | AttributeTask | None = None,
        progress: Progress = silent,
        **fields: Any,  # of an AttributeRequest
    ) -> AttributeResult:
        """Whether images were made by this model."""
        task = request if isinstance(request, AttributeTask) else self.prepare_attribution(request, **fields)
        with self.chosen_kernels():
            return attribute.attribute(self, task, progress)

    def metrics(
        self,
        *names: str,  # fid, kid, ppl ..., see metrics.registry
        data: str | Path | None = None,  # real images; None: those that the model was trained on
        progress: Progress = silent,
        **options: Any,  # see metrics.registry.resolve
    ) -> Results:
        """Measure the model."""
        protocol, reals = resolve(names, **options), None
        if self.info.generator.c_dim or protocol.needs_reals:
            reals = open_training_set(self.info, None if data is None else str(data))
        with self.chosen_kernels():
            return measure(protocol, self.G, reals, self.device, progress)
