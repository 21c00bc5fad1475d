"""The bound of scANVI by hand: plain PyTorch, no Pyro, one line a term (science: book/04_model.md)."""

import math

import torch
from torch.nn.functional import log_softmax, softplus


def normal(value, loc, scale):
    return (-0.5 * ((value - loc) / scale) ** 2 - scale.log() - 0.5 * math.log(2 * math.pi)).sum(-1)


def log_normal(value, loc, scale):
    log = value.log()
    return (-0.5 * ((log - loc) / scale) ** 2 - scale.log() - 0.5 * math.log(2 * math.pi) - log).sum(-1)


def counts(kind, x, mean, theta, gate):
    if kind == "poisson":
        return (x * mean.log() - mean - torch.lgamma(x + 1)).sum(-1)
    component = (
        torch.lgamma(x + theta)
        - torch.lgamma(theta)
        - torch.lgamma(x + 1)
        + theta * (theta / (theta + mean)).log()
        + x * (mean / (theta + mean)).log()
    )
    if kind == "nb":
        return component.sum(-1)
    dropped = torch.sigmoid(gate)
    return torch.where(x == 0, (dropped + (1 - dropped) * component.exp()).log(), (1 - dropped).log() + component).sum(
        -1
    )


def split(net, *inputs):
    """Run the bare layers of a network on inputs of equal leading axes."""
    joined = torch.cat(inputs, -1)
    out = net.heads.layers(joined.reshape(-1, joined.shape[-1]))
    return out.reshape(*joined.shape[:-1], -1).split(net.heads.widths, -1)


def scale_of(raw):
    return softplus(raw) + 1e-4


def minus_bound(model, x, noise, y=None, kl_weight=1.0, depth=None, batch=None):
    """Return the sum over cells of −U (without y) or −(L + α log q(y | z2)) (with y).

    `noise` holds standard-normal draws: z2 (cells latent), l (cells 1), z1 (labels cells latent), or (cells latent)
    where y is given and exact. `batch` holds the number of each cell's batch. Where labels are coarse or may be wrong,
    `y` holds the types that a label allows, and the type is summed over.
    """
    config = model.config
    n = len(x)
    k = len(model.label_names)
    typical = math.exp(model.library_loc) * x / x.sum(-1, keepdim=True)
    z2_loc, z2_raw, l_shift, l_raw = split(model.z2l_encoder, torch.log1p(typical))
    l_loc = x.sum(-1, keepdim=True).log() + l_shift
    z2_scale, l_scale = scale_of(z2_raw), scale_of(l_raw)
    z2 = z2_loc + z2_scale * noise["z2"]
    kl = normal(z2, z2_loc, z2_scale)
    if config.library == "latent":
        ell = (l_loc + l_scale * noise["l"]).exp()
        loc, scale = (torch.tensor(v, dtype=x.dtype) for v in (model.library_loc, model.library_scale))
        if batch is not None:
            moments = zip(model.batches.library_loc, model.batches.library_scale, strict=True)
            loc, scale = torch.tensor(list(moments), dtype=x.dtype)[batch].split(1, -1)
        loc = loc if depth is None else loc + depth.log()
        kl = kl + log_normal(ell, l_loc, l_scale) - log_normal(ell, loc, scale)
    else:
        ell = x.sum(-1, keepdim=True)

    seen = z2 if batch is None else torch.cat([z2, torch.eye(len(model.batches.names), dtype=x.dtype)[batch]], -1)
    out = split(model.x_decoder, seen)
    gate = out[1] if len(out) == 2 else None
    theta = None if config.gene_likelihood == "poisson" else model.log_inverse_dispersion.exp()
    log_likelihood = counts(config.gene_likelihood, x, ell * out[0].softmax(-1), theta, gate)

    logits = split(model.classifier, z2)[0]
    log_q_y = log_softmax(logits, -1)

    def type_terms(y, eps):
        z1_loc, z1_raw = split(model.z1_encoder, z2.expand(*y.shape[:-1], -1), y)
        z1_scale = scale_of(z1_raw)
        z1 = z1_loc + z1_scale * eps
        p_loc, p_raw = split(model.z2_decoder, z1, y)
        zero, one = torch.zeros_like(z1), torch.ones_like(z1)
        return normal(z1, zero, one) + normal(z2, p_loc, scale_of(p_raw)) - normal(z1, z1_loc, z1_scale)

    shares, confusion, prior = label_parameters(model, x)
    prior = n / model.n_cells * prior
    alpha = model.config.label_weight / model.labeled_fraction
    if y is None or model.columns.coarse or config.label_noise > 0:
        p_label = None if y is None else sum(y[:, [s]] * confusion[:, s] for s in range(k))  # (cells labels)
        log_q = log_q_y if y is None else log_softmax(logits + p_label.clamp(min=1e-30).log(), -1)
        every = torch.eye(k, dtype=x.dtype)[:, None].expand(k, n, k)
        inner = type_terms(every, noise["z1"]).T  # (cells labels)
        kl = kl - (log_q.exp() * (inner + shares.log() - log_q)).sum(-1)
        bound = log_likelihood - kl_weight * kl
        if y is not None:  # the label is observed, so no KL weight touches it
            bound = bound + (log_q.exp() * p_label.clamp(min=1e-30).log()).sum(-1)
            bound = bound + alpha * (log_q_y.exp() * p_label).sum(-1).log()
        return -bound.sum() - prior
    inner = type_terms(y, noise["z1"])
    log_label = (log_q_y * y).sum(-1)
    # y is observed, so no KL weight touches log p(y)
    bound = log_likelihood - kl_weight * (kl - inner) + (y * shares.log()).sum(-1)
    return -(bound + alpha * log_label).sum() - prior


def label_parameters(model, x):
    """Return p(y), p(label | y) and the log-density of their priors: ten cells and a hundred labels of each type."""
    k, noise = len(model.label_names), model.config.label_noise
    expected = torch.full((k, k), noise / (k - 1), dtype=x.dtype)
    expected[range(k), range(k)] = 1 - noise
    shares, confusion, prior = torch.full((k,), 1 / k, dtype=x.dtype), expected, torch.zeros((), dtype=x.dtype)

    def dirichlet(p, a):
        return torch.lgamma(a.sum()) - torch.lgamma(a).sum() + ((a - 1) * p.log()).sum()

    if model.config.shares == "learned":
        shares = model.share_logits.softmax(-1)
        prior = prior + dirichlet(shares, torch.full((k,), 11.0, dtype=x.dtype))
    if model.config.confusion == "learned":
        confusion = model.confusion_logits.softmax(-1)
        prior = prior + sum(dirichlet(row, 1 + 100 * about) for row, about in zip(confusion, expected, strict=True))
    return shares, confusion, prior


def noise_of(guide):
    """Return the standard-normal draws behind a trace of the guide: z2, l where it is latent, and z1."""
    found = {}
    for site in ("z2", "l", "z1"):
        if site in guide.nodes:
            law, value = guide.nodes[site]["fn"].base_dist, guide.nodes[site]["value"]
            found[site] = (((value.log() if site == "l" else value) - law.loc) / law.scale).detach()
    return found


def gradients(model, loss):
    """Return the gradient of `loss` in every parameter that it reaches, by name."""
    model.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
