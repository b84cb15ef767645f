"""Networks of fairchem-core 2 (eSEN, UMA) as potentials, from checkpoints on the user's disk.

The energy is that of fairchem's own calculator, in the precision asked for:

    E = rmsd y + mean + Σ_i ref(Z_i)                                                       (1)

with the network's output y and the normaliser and element references of the task. Conservative
networks become torch energies, differentiated twice by the bridge; networks that predict forces
(direct ones) keep them. Three things differ from the calculator's defaults, none of them in what
is computed: the experts of UMA stay unmerged, so that any composition may follow any other;
activation checkpointing and compilation, which get in the way of second derivatives, are off; and
the roll angle of each edge's frame, which fairchem draws at random, is 0, so that results repeat
to the last bit (the networks are equivariant in it: to rounding, every angle gives the same).
Edge frames come from quaternions in two charts, smoothly blended: second derivatives are finite
along every direction, ±y included.
"""

import hashlib
import pathlib
from dataclasses import dataclass
from typing import Any

from phojax.checks import InputError, fail
from phojax.potentials import fairchem_checkpoint
from phojax.potentials.contract import Potential
from phojax.potentials.torch_bridge import from_energy, from_forces, imported_torch

# Up to here edge frames are polynomials in quaternions. Beyond, fairchem-core 2.24 clamps
# logarithms: exactly along ±y second derivatives are wrong (rocksalt: 2 % at lmax 5, half at 6).
_HIGHEST = 4
# Least squares leave 1e-14 eV for elements that the training data do not hold.
_NO_REFERENCE = 1e-9


@dataclass(frozen=True)
class Network:
    """A network ready to be evaluated.

    Attributes:
        module: The network, in evaluation mode.
        tasks: Energy, and forces and stress where they are predicted, by these names.
        dataset: The task's name, an input of the network.
        elements: Atomic numbers with a reference energy; all that are embedded if none has.
        cutoff: Of one layer, Å.
        direct: Whether forces are predicted.
        charge: Total charge in e, an input of the network.
        spin: Spin multiplicity, an input of the network.
        dtype: torch's.
        device: torch's.
    """

    module: Any
    tasks: dict[str, Any]
    dataset: str
    elements: frozenset[int]
    cutoff: float
    direct: bool
    charge: int
    spin: int
    dtype: Any
    device: Any

    def energy(self, numbers, cell, positions):
        """Return E in eV, eq. (1), from (atom,) int64, (3, 3) Å and (atom, 3) Å tensors."""
        return self._outputs(numbers, cell, positions, ("energy",))["energy"].reshape(())

    def predict(self, numbers, cell, positions, stress: bool):
        """Return E (eV), F (eV/Å) and σ (eV/Å³; None if not wanted or not predicted)."""
        wanted = [p for p in self.tasks if p != "stress" or stress]
        found = self._outputs(numbers, cell, positions, wanted)
        sigma = found["stress"].reshape(3, 3) if "stress" in found else None
        return found["energy"].reshape(()), found["forces"], sigma

    def _outputs(self, numbers, cell, positions, wanted) -> dict[str, Any]:
        data = self._data(numbers, cell, positions)
        given = self.module(data)
        found = {}
        for name in wanted:
            task = self.tasks[name]
            found[name] = task.normalizer.denorm(given[task.name][task.property])
            if task.element_references is not None:
                found[name] = task.element_references.undo_refs(data, found[name])
        return found

    def _data(self, numbers, cell, positions):
        import torch
        from fairchem.core.datasets.atomic_data import AtomicData

        # fairchem's graphs hold for atoms inside the cell. The shifts are integers: constants.
        inside = positions.detach() @ torch.linalg.inv(cell.detach())
        positions = positions - torch.floor(inside) @ cell
        n = len(numbers)

        def whole(*values):
            return torch.tensor(values, device=numbers.device)

        return AtomicData(
            pos=positions,
            atomic_numbers=numbers,
            cell=cell[None],
            pbc=torch.ones(1, 3, dtype=torch.bool, device=numbers.device),
            natoms=whole(n),
            edge_index=numbers.new_zeros(2, 0),
            cell_offsets=positions.new_zeros(0, 3),
            nedges=whole(0),
            charge=whole(self.charge),
            spin=whole(self.spin),
            fixed=torch.zeros_like(numbers),
            tags=torch.zeros_like(numbers),
            batch=torch.zeros_like(numbers),
            dataset=self.dataset,
        )


def fairchem(
    source: str | pathlib.Path,
    *,
    task: str = "omat",
    dtype: str = "float64",
    device: str | None = None,
    charge: int = 0,
    spin: int | None = None,
) -> Potential:
    """Return the potential of a checkpoint of fairchem-core 2.

    Args:
        source: An inference checkpoint (`.pt`) of eSEN or UMA.
        task: Which of its data sets' levels of theory; omat: bulk crystals in PBE(+U).
        dtype: float64 (for second derivatives) or float32 (as it was trained).
        device: As torch names it; None for a GPU where there is one.
        charge: Total charge in e, seen by networks trained on molecules.
        spin: Spin multiplicity; None for fairchem's own, 1 for omol and 0 for the rest.

    Raises:
        InputError: torch or fairchem-core 2 not installed; a file that cannot be read, that
            holds anything but data, or another network; a task or device it does not have.
    """
    path = pathlib.Path(source)
    made = network(path, task=task, dtype=dtype, device=device, charge=charge, spin=spin)
    options = {
        "name": f"fairchem:{path}",
        "elements": made.elements,
        "cutoff": made.cutoff,
        "dtype": dtype,
        "device": str(made.device),
        "provenance": f"{path.name}, task {task}, {dtype}, "
        f"fairchem-core {fairchem_checkpoint.version()}",
        "fingerprint": _digest(path, task, charge, made.spin),
    }
    if made.direct:
        return from_forces(made.predict, **options)
    return from_energy(made.energy, **options)


def network(
    path: pathlib.Path,
    *,
    task: str = "omat",
    dtype: str = "float64",
    device: str | None = None,
    charge: int = 0,
    spin: int | None = None,
) -> Network:
    """Return the network of a checkpoint; arguments and errors as for `fairchem`."""
    torch = imported_torch()
    if dtype not in ("float32", "float64"):
        raise fail(f"dtype {dtype!r}", "float64 or float32")
    where = _device(torch, device)
    checkpoint = fairchem_checkpoint.read_checkpoint(path)
    tasks = [t for t in checkpoint.tasks_config if task in t["datasets"]]
    if not any(t["property"] == "energy" for t in tasks):
        known = {d for t in checkpoint.tasks_config for d in t["datasets"]}
        raise fail(f"{path}: no energy for the task {task!r}", f"one of {sorted(known)}")
    precision = getattr(torch, dtype)
    try:
        module, made = _built(torch, checkpoint, tasks, precision, path)
        module = module.to(where, precision)
        for one in made.values():
            # The references, in double precision where the file has them so, stay as they are.
            one.normalizer.to(where)
            if one.element_references is not None:
                one.element_references.to(where)
    except InputError:
        raise
    except Exception as problem:  # fairchem, hydra and torch each have errors of their own
        said = str(problem).strip().split("\n")[0][:300]
        raise fail(
            f"{path} cannot be built by fairchem-core {fairchem_checkpoint.version()} "
            f"({type(problem).__name__}: {said})",
            "an eSEN or UMA checkpoint of fairchem-core 2",
            f"Try the version that wrote it, or {fairchem_checkpoint.INSTALL}",
        ) from problem
    backbone = module.backbone
    if backbone.lmax > _HIGHEST:
        raise fail(
            f"{path}: lmax is {backbone.lmax}", f"at most {_HIGHEST}, as published ones have"
        )
    direct = bool(backbone.regress_config.direct_forces)
    if direct and "forces" not in made:
        raise fail(f"{path}: no forces for the task {task!r}", "forces, from a direct network")
    return Network(
        module=module,
        tasks=made if direct else {"energy": made["energy"]},
        dataset=task,
        elements=_elements(made["energy"], int(backbone.max_num_elements)),
        cutoff=float(backbone.cutoff),
        direct=direct,
        charge=charge,
        spin=(1 if task == "omol" else 0) if spin is None else spin,
        dtype=precision,
        device=where,
    )


def _built(torch, checkpoint, tasks, dtype, path) -> tuple[Any, dict[str, Any]]:
    """Return the network on the CPU, and its tasks by property."""
    import hydra
    from fairchem.core.units.mlip_unit.utils import load_inference_model

    settings = {
        "otf_graph": True,
        "always_use_pbc": False,
        "activation_checkpointing": False,
        "use_quaternion_wigner": True,
        "execution_mode": "general",
    }
    if "moe_layer_type" in checkpoint.model_config["backbone"]:
        settings["moe_layer_type"] = "pytorch"  # the same weights; others have one derivative
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)  # so that tables are made in it, not cast to it
    try:
        averaged, _ = load_inference_model(
            str(path),
            use_ema=True,
            overrides={"backbone": settings},
            preloaded_checkpoint=checkpoint,
        )
        made = {t["property"]: hydra.utils.instantiate(t) for t in tasks}
    finally:
        torch.set_default_dtype(before)
    module = averaged.module.eval().requires_grad_(False)
    # The bridge differentiates, not the heads: their own pass would free the graph.
    module.backbone.regress_config.forces = False
    module.backbone.regress_config.stress = False
    _fix_roll(torch, module.backbone)
    return module, made


def _fix_roll(torch, backbone) -> None:
    """Give every edge's frame the roll angle 0 in place of a random one."""
    from fairchem.core.models.uma.common.quaternion.wigner_d_hybrid import axis_angle_wigner_hybrid

    if not hasattr(backbone, "_get_rotmat_and_wigner"):
        raise fail(
            "an unknown way of making edge frames",
            "that of fairchem-core 2.24",
            fairchem_checkpoint.INSTALL,
        )
    tables = backbone.wigner_data

    def rotations(vectors):
        return axis_angle_wigner_hybrid(
            vectors,
            backbone.lmax,
            gamma=torch.zeros_like(vectors[:, 0]),
            coeffs=tables.coeffs,
            U_blocks=tables.U_blocks,
            custom_kernels=tables.custom_kernels,
        )

    backbone._get_rotmat_and_wigner = rotations


def _elements(task, embedded: int) -> frozenset[int]:
    every = frozenset(range(1, embedded))
    if task.element_references is None:
        return every
    references = task.element_references.element_references.reshape(-1).tolist()
    fitted = {z for z, energy in enumerate(references) if abs(energy) > _NO_REFERENCE}
    return every & fitted or every


def _device(torch, device: str | None):
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        made = torch.device(device)
        torch.zeros(1, device=made)
    except Exception as error:  # RuntimeError or AssertionError, by what torch was built with
        said = str(error).strip().split("\n")[0]
        raise fail(f"device {device!r} ({said})", "one that torch can use, such as cpu") from error
    return made


def _digest(path: pathlib.Path, *options) -> str:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
    digest.update(repr(options).encode())
    return digest.hexdigest()


__all__ = ["Network", "fairchem", "network"]
