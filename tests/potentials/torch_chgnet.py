"""CHGNet of the chgnet package as a function of tensors, in float64: what a bridge asks for."""

import torch
from ase import Atoms
from chgnet.graph import converter, crystalgraph
from chgnet.model import model as theirs
from pymatgen.io.ase import AseAtomsAdaptor


def chgnet_energy():
    """Return E(numbers, cell, positions) in eV, differentiable; the graph is made at each call."""
    network = theirs.CHGNet.load(use_device="cpu", verbose=False).double()

    def composition(graphs):
        counts = [torch.bincount(g.atomic_number - 1, minlength=94).double() for g in graphs]
        return torch.stack([count / count.sum() for count in counts])

    network.composition_model._assemble_graphs = composition

    def energy(numbers, cell, positions):
        modules = (converter, crystalgraph, theirs)
        before = [module.TORCH_DTYPE for module in modules]
        for module in modules:
            module.TORCH_DTYPE = torch.float64
        try:
            atoms = Atoms(numbers=numbers, cell=cell.detach(), positions=positions.detach(), pbc=1)
            graph = network.graph_converter(AseAtomsAdaptor.get_structure(atoms))
            # The converter wraps positions into the cell; images are counted from there.
            fractional = positions @ torch.linalg.inv(cell)
            wrapped = graph.atom_frac_coord.double()
            graph.atom_frac_coord = fractional + torch.round(wrapped - fractional).detach()
            graph.lattice = cell
            return network([graph], task="e")["e"].sum() * len(numbers)
        finally:
            for module, dtype in zip(modules, before, strict=True):
                module.TORCH_DTYPE = dtype

    return energy
