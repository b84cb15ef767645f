"""What training asks for; every number here is stored with the model."""

from dataclasses import dataclass

MIN_DETECTED = 30
"""With fewer detected D no surrogate is trained, and none predicts."""

MIN_SYSTEMS = 5
"""Chemical systems that a validation by systems needs at least."""


@dataclass(frozen=True)
class LearnSettings:
    """Settings of the surrogate.

    Attributes:
        members: Networks of the ensemble; each leaves out one part of the chemical systems.
        folds: Parts of the cross-validation that the metrics come from.
        width: Neurons of each of the two hidden layers.
        steps: Of Adam on all rows at once, at most.
        every: Steps between looks at what was left out.
        rate: Of Adam.
        strengths: Precisions of the Gaussian prior on the weights to choose from.
        trees: Of the model of trees beside the surrogate.
        seed: Of all random numbers.
    """

    members: int = 8
    folds: int = 5
    width: int = 24
    steps: int = 600
    every: int = 10
    rate: float = 0.01
    strengths: tuple[float, ...] = (1.0, 10.0, 100.0)
    trees: int = 100
    seed: int = 0
