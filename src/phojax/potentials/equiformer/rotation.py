"""Rotation of features into the frames of edges, with derivatives.

A feature of degree l is rotated into the frame of an edge with direction n (a unit vector) by
D(R), R n = y. Any R with that property will do: the choice of the angle about n is a gauge, on
which the network depends weakly (its non-linearity acts on a grid of points). The shipped code
takes the angle from a random vector and treats D as constant in derivatives. Here it moves:
when n turns to n + dn, the frame is carried along by the smallest rotation that does it, through
ω = n × dn, so that R → R exp(−[ω]×) and

    dD = −D Σ_a ω_a G_a,        G_a = d/dω_a D(exp [ω]×) at ω = 0                (1)

with the generators G_a of the rotation group (a = x, y, z), constant and block diagonal in l.
(1) needs neither angles nor their singular directions (edges along ±y), and since D is its own
output in (1), all higher derivatives follow. The same transport over a finite turn n₀ → n is

    R(n) = R(n₀) Qᵀ,   Q = 1 + [v]× + [v]×² / (1 + c),   v = n₀ × n,   c = n₀·n   (2)

(Rodrigues), singular only where an edge reverses. In it, (1) is the derivative at n₀.
"""

from typing import Any

from phojax.potentials.equiformer.official import official

try:
    import torch
except ImportError:  # told with the line that installs it
    official()
    raise


def generators(lmax: int) -> torch.Tensor:
    """Return G_a of eq. (1) for l = 0 … lmax, block diagonal, shape (3, S, S), S = (lmax+1)²,
    float64, in the basis of the D matrices of the official code.

    There R_y(α) = D(α, 0, 0) and R_x(β) = D(0, β, 0); G_z follows from [G_x, G_y] = G_z.
    """
    D = official().wigner_D

    def generator(degree: int, which: int) -> torch.Tensor:
        def turned(angle):
            zero = torch.zeros_like(angle)
            angles = [zero, zero, zero]
            angles[which] = angle
            return D(degree, *angles)

        return torch.func.jacfwd(turned)(torch.zeros((), dtype=torch.float64))

    blocks = []
    for degree in range(lmax + 1):
        Gy, Gx = generator(degree, 0), generator(degree, 1)
        blocks.append(torch.stack([Gx, Gy, Gx @ Gy - Gy @ Gx]))
    return torch.stack([torch.block_diag(*(block[a] for block in blocks)) for a in range(3)])


class Carried(torch.autograd.Function):
    """D as a function of the edge directions n by eq. (1): its value is given, its slope known.

    Takes n (E, 3), D (E, S, S) and G (3, S, S); differentiable in n in forward and reverse mode,
    to any order, and under torch.func.vmap.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(n, D, G):
        return D.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs, output):
        n, _, G = inputs
        ctx.save_for_backward(n, output, G)
        ctx.save_for_forward(n, output, G)

    @staticmethod
    def backward(ctx: Any, *grads):
        n, D, G = ctx.saved_tensors
        # ⟨g, dD⟩ = −Σ_a ω_a ⟨Dᵀg, G_a⟩ and w·(n × dn) = (w × n)·dn.
        w = -torch.einsum("eij,aij->ea", D.transpose(1, 2) @ grads[0], G)
        return torch.linalg.cross(w, n, dim=-1), None, None

    @staticmethod
    def jvp(ctx: Any, *grad_inputs):
        n, D, G = ctx.saved_tensors
        dn = grad_inputs[0]
        omega = torch.linalg.cross(n, dn, dim=-1)
        return -(D @ torch.einsum("ea,aij->eij", omega, G))


def carried_frames(frames: torch.Tensor, start: torch.Tensor, end: torch.Tensor) -> torch.Tensor:
    """Return the frames (E, 3, 3) of directions `start` carried to directions `end`, eq. (2).

    Edges that have not turned keep theirs bit for bit.
    """
    v = torch.linalg.cross(start, end, dim=-1)
    zero = torch.zeros_like(v[:, 0])
    cross = torch.stack(
        [zero, -v[:, 2], v[:, 1], v[:, 2], zero, -v[:, 0], -v[:, 1], v[:, 0], zero], dim=-1
    ).view(-1, 3, 3)
    c = (start * end).sum(-1).view(-1, 1, 1)
    Q = torch.eye(3, dtype=v.dtype, device=v.device) + cross + cross @ cross / (1 + c)
    still = (start == end).all(-1).view(-1, 1, 1)
    return torch.where(still, frames, frames @ Q.transpose(1, 2))
