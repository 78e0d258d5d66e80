"""What gathering schemes do to loss and gradients, against one process with the whole batch.

python benchmarks/gather_schemes.py
"""

import sys
import tempfile
import warnings
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import torch.nn.functional as F
from torch import nn
from torch.nn.parallel import DistributedDataParallel

sys.path.insert(0, str(Path(__file__).parent))
from _measure import save

import embedkit as ek

DIM = 16


def info_nce(query, key, scale, target):
    logits = F.normalize(query) @ F.normalize(key).T * scale
    return F.cross_entropy(logits, target)


def plain_gather(x, own=None):
    """torch's gather: no gradient flows; ``own`` puts this rank's rows, with theirs, back."""
    pieces = [torch.empty_like(x) for _ in range(dist.get_world_size())]
    dist.all_gather(pieces, x.contiguous())
    if own is not None:
        pieces[dist.get_rank()] = own
    return torch.cat(pieces)


def whole(query, key, scale):
    return info_nce(query, key, scale, torch.arange(len(query)))


def offset(query):
    return torch.arange(len(query)) + dist.get_rank() * len(query)


def whole_per_rank():
    """The whole matrix on every rank; what other ranks hold is a constant there."""

    def loss(query, key, scale):
        return whole(plain_gather(query, query), plain_gather(key, key), scale)

    return loss, whole


def local(own):
    """Local rows against the columns of all ranks, which are constants, maybe but one's own."""

    def loss(query, key, scale):
        return info_nce(query, plain_gather(key, key if own else None), scale, offset(query))

    return loss, whole


def sentence_transformers():
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

    def through(module):
        def loss(query, key, scale):
            module.scale = scale
            return module.compute_loss_from_embeddings([query, key], None)

        return loss

    gathers = MultipleNegativesRankingLoss(None, gather_across_devices=True)
    return through(gathers), through(MultipleNegativesRankingLoss(None))


def pytorch_metric_learning(efficient):
    from pytorch_metric_learning.losses import NTXentLoss
    from pytorch_metric_learning.utils.distributed import DistributedLossWrapper

    def through(module, labels_of):
        def loss(query, key, scale):
            return module(torch.cat([query, key]), labels_of(query).repeat(2)) + 0 * scale

        return loss

    gathers = DistributedLossWrapper(NTXentLoss(temperature=0.1), efficient=efficient)
    return through(gathers, offset), through(
        NTXentLoss(temperature=0.1), lambda q: torch.arange(len(q))
    )


def ours():
    def loss(query, key, scale):
        return ek.losses.info_nce(query, key, temperature=1 / scale, gather=True)

    return loss, whole


# Each gives the loss of a rank's (query, key, scale) and the same loss of the whole batch.
SCHEMES = {
    "whole matrix on every rank, gathered without gradient, own rows put back": whole_per_rank,
    "local rows, gathered without gradient": lambda: local(False),
    "local rows, gathered without gradient, own rows put back": lambda: local(True),
    "sentence-transformers, gather_across_devices=True": sentence_transformers,
    "pytorch-metric-learning, DistributedLossWrapper": lambda: pytorch_metric_learning(False),
    "pytorch-metric-learning, the same with efficient=True": lambda: pytorch_metric_learning(True),
    "embedkit, gather=True": ours,
}


class Model(nn.Module):
    """One encoder for both sides and a log-scale."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.Linear(DIM, DIM)
        self.log_scale = nn.Parameter(torch.tensor(10.0).log())

    def forward(self, query, key):
        return self.encoder(query), self.encoder(key), self.log_scale.exp()


def gradients(model):
    encoder = torch.cat([p.grad.flatten() for p in model.encoder.parameters()])
    return encoder, model.log_scale.grad


def measure(rank, store, sizes, name, results):
    """One DDP step on every rank; rank 0 keeps ratios and cosine."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    dist.init_process_group(
        "gloo",
        store=dist.FileStore(store, len(sizes)),
        rank=rank,
        world_size=len(sizes),
        timeout=timedelta(seconds=20),
    )
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(sum(sizes), DIM, generator=generator, dtype=torch.float64)
    key = query + 0.5 * torch.randn(query.shape, generator=generator, dtype=torch.float64)
    own = slice(sum(sizes[:rank]), sum(sizes[: rank + 1]))
    loss, alone = SCHEMES[name]()
    torch.manual_seed(1)
    reference = Model().double()
    model = DistributedDataParallel(Model().double())
    model.module.load_state_dict(reference.state_dict())
    want = alone(*reference(query, key))
    want.backward()
    got = loss(*model(query[own], key[own]))
    got.backward()
    mean = got.detach().clone()
    dist.all_reduce(mean)
    (a, s), (b, t) = gradients(reference), gradients(model.module)
    numbers = [mean / len(sizes) / want, b.norm() / a.norm(), F.cosine_similarity(a, b, dim=0)]
    if float(s):
        numbers.append(t / s)
    if rank == 0:
        results.put([f"{float(number):.3f}" for number in numbers])
    dist.destroy_process_group()


def main():
    """One table: what each scheme does on equal and on unequal ranks."""
    rows = []
    for sizes in ([16, 16], [8, 8, 8, 8], [4, 3]):
        for name in SCHEMES:
            with tempfile.TemporaryDirectory() as folder:
                results = mp.get_context("spawn").SimpleQueue()
                args = (f"{folder}/store", sizes, name, results)
                try:
                    mp.spawn(measure, args, nprocs=len(sizes))
                except mp.ProcessExitedException:
                    numbers = ["the process aborts"]
                except mp.ProcessRaisedException:
                    numbers = ["an error"]
                else:
                    numbers = results.get()
            row = [" + ".join(map(str, sizes)), name, *numbers]
            print(row, file=sys.stderr)
            rows.append(row + [""] * (6 - len(row)))
    header = [
        "rows per rank",
        "scheme",
        "mean loss / whole",
        "gradient length / whole",
        "cosine with whole",
        "temperature gradient / whole",
    ]
    save("gather_schemes", "Gathering schemes after one DDP step, float64", header, rows, "cpu")


if __name__ == "__main__":
    main()
