"""Ranking models as people write them in PyTorch, with small tables. Each entry of MODELS makes (module, inputs)."""

import torch
import torch.nn.functional as F
from torch import nn

DENSE, SPARSE, WIDTH, VOCABULARY, HISTORY = 13, 26, 8, 5, 10
ROWS = 5


def mlp(*sizes, activation=nn.ReLU, last=False):
    layers = []
    for index, (inputs, outputs) in enumerate(zip(sizes, sizes[1:])):
        layers.append(nn.Linear(inputs, outputs))
        if last or index < len(sizes) - 2:
            layers.append(activation())
    return nn.Sequential(*layers)


class Fields(nn.Module):
    """An embedding table for each column."""

    def __init__(self, columns=SPARSE, width=WIDTH):
        super().__init__()
        self.tables = nn.ModuleList(nn.Embedding(VOCABULARY + column, width) for column in range(columns))

    def forward(self, sparse):
        return [table(sparse[:, column]) for column, table in enumerate(self.tables)]


class Joined(nn.Module):
    """One table for all columns, with offsets."""

    def __init__(self, columns=SPARSE, width=WIDTH):
        super().__init__()
        sizes = torch.tensor([VOCABULARY + column for column in range(columns)])
        self.register_buffer("offsets", torch.cumsum(sizes, 0) - sizes)
        self.table = nn.Embedding(int(sizes.sum()), width)

    def forward(self, sparse):
        return self.table(sparse + self.offsets)


class Dlrm(nn.Module):
    def __init__(self):
        super().__init__()
        self.bottom = mlp(DENSE, 32, WIDTH, last=True)
        self.fields = Fields()
        count = SPARSE + 1
        self.register_buffer("lower", torch.tril_indices(count, count, -1))
        self.top = mlp(WIDTH + count * (count - 1) // 2, 32, 16, 1)

    def forward(self, dense, sparse):
        x = self.bottom(dense)
        z = torch.stack([x, *self.fields(sparse)], dim=1)
        dots = torch.bmm(z, z.transpose(1, 2))[:, self.lower[0], self.lower[1]]
        return torch.sigmoid(self.top(torch.cat([x, dots], dim=1))).squeeze(1)


class LowRankCross(nn.Module):
    def __init__(self, width, rank, layers):
        super().__init__()
        self.down = nn.ModuleList(nn.Linear(width, rank, bias=False) for _ in range(layers))
        self.up = nn.ModuleList(nn.Linear(rank, width) for _ in range(layers))

    def forward(self, x0):
        x = x0
        for down, up in zip(self.down, self.up):
            x = x0 * up(down(x)) + x
        return x


class DlrmDcn(nn.Module):
    def __init__(self):
        super().__init__()
        self.bottom = mlp(DENSE, 32, WIDTH, last=True)
        self.fields = Fields()
        width = WIDTH * (SPARSE + 1)
        self.cross = LowRankCross(width, 8, 3)
        self.top = mlp(width, 32, 16, 1)

    def forward(self, dense, sparse):
        x = torch.cat([self.bottom(dense), *self.fields(sparse)], dim=1)
        return self.top(self.cross(x)).view(-1)


class Dcn(nn.Module):
    """The first version: one vector a layer."""

    def __init__(self):
        super().__init__()
        self.embedding = Joined()
        width = DENSE + SPARSE * WIDTH
        self.weights = nn.ParameterList(torch.randn(width) * 0.1 for _ in range(3))
        self.biases = nn.ParameterList(torch.randn(width) * 0.1 for _ in range(3))
        self.deep = mlp(width, 32, 16, last=True)
        self.norm = nn.BatchNorm1d(DENSE)
        self.out = nn.Linear(width + 16, 1)

    def forward(self, dense, sparse):
        x0 = torch.cat([self.norm(dense), self.embedding(sparse).flatten(1)], dim=1)
        x = x0
        for weight, bias in zip(self.weights, self.biases):
            x = x0 * torch.matmul(x, weight).unsqueeze(1) + bias + x
        return torch.sigmoid(self.out(torch.cat([x, self.deep(x0)], dim=-1)))


class WideAndDeep(nn.Module):
    def __init__(self):
        super().__init__()
        self.wide = Joined(width=1)
        self.wide_dense = nn.Linear(DENSE, 1)
        self.embedding = Joined()
        self.deep = mlp(DENSE + SPARSE * WIDTH, 32, 16, 1)

    def forward(self, dense, sparse):
        wide = self.wide(sparse).sum(1) + self.wide_dense(torch.log1p(dense.abs()))
        deep = self.deep(torch.cat([dense, self.embedding(sparse).view(-1, SPARSE * WIDTH)], 1))
        return torch.sigmoid(wide + deep).squeeze(-1)


class DeepFm(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = Joined(width=1)
        self.embedding = Joined()
        self.deep = nn.Sequential(
            nn.Linear(SPARSE * WIDTH, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Dropout(0.2), nn.Linear(32, 1)
        )
        self.bias = nn.Parameter(torch.zeros(1))

    def forward(self, sparse):
        e = self.embedding(sparse)
        pairs = 0.5 * (e.sum(dim=1) ** 2 - (e**2).sum(dim=1)).sum(dim=1, keepdim=True)
        logit = self.bias + self.first(sparse).sum(dim=1) + pairs + self.deep(e.reshape(e.shape[0], -1))
        return torch.sigmoid(logit.squeeze(1))


class XDeepFm(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = Joined()
        sizes = [SPARSE, 12, 12]
        self.filters = nn.ModuleList(nn.Conv1d(SPARSE * a, b, 1) for a, b in zip(sizes, sizes[1:]))
        self.linear = Joined(width=1)
        self.deep = mlp(SPARSE * WIDTH, 32, 1, activation=nn.SiLU)
        self.out = nn.Linear(24, 1)

    def forward(self, sparse):
        x0 = self.embedding(sparse)
        x, sums = x0, []
        for conv in self.filters:
            outer = torch.einsum("bhd,bmd->bhmd", x, x0)
            x = torch.relu(conv(outer.reshape(outer.shape[0], -1, WIDTH)))
            sums.append(x.sum(2))
        cin = self.out(torch.cat(sums, 1))
        return torch.sigmoid(cin + self.deep(x0.flatten(1)) + self.linear(sparse).sum(1))


class TwoTower(nn.Module):
    def __init__(self):
        super().__init__()
        self.user, self.item = Joined(10), Joined(6)
        self.user_tower = mlp(DENSE + 10 * WIDTH, 32, 16)
        self.item_tower = mlp(6 * WIDTH, 32, 16)
        self.norm = nn.LayerNorm(48)
        self.top = mlp(48, 16, 1, activation=nn.GELU)

    def forward(self, dense, user, item):
        u = F.normalize(self.user_tower(torch.cat([dense, self.user(user).flatten(1)], 1)), dim=1)
        i = F.normalize(self.item_tower(self.item(item).flatten(1)), dim=1)
        x = self.norm(torch.cat([u, i, u * i], 1))
        return (u * i).sum(1) + self.top(x).squeeze(1)


class Mmoe(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = Joined()
        width = DENSE + SPARSE * WIDTH
        self.experts = nn.ModuleList(mlp(width, 16, 8, last=True) for _ in range(4))
        self.gates = nn.ModuleList(nn.Linear(width, 4, bias=False) for _ in range(2))
        self.towers = nn.ModuleList(mlp(8, 8, 1, activation=nn.PReLU) for _ in range(2))

    def forward(self, dense, sparse):
        x = torch.cat([dense, self.embedding(sparse).flatten(1)], 1)
        experts = torch.stack([expert(x) for expert in self.experts], 1)
        scores = []
        for gate, tower in zip(self.gates, self.towers):
            weights = torch.softmax(gate(x), -1).unsqueeze(1)
            scores.append(torch.sigmoid(tower(torch.matmul(weights, experts).squeeze(1))))
        return scores[0], scores[1]


class Dice(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.norm = nn.BatchNorm1d(width, eps=1e-8)
        self.alpha = nn.Parameter(torch.zeros(width) + 0.25)

    def forward(self, x):
        p = torch.sigmoid(self.norm(x))
        return p * x + (1 - p) * self.alpha * x


class Din(nn.Module):
    def __init__(self):
        super().__init__()
        self.items = nn.Embedding(VOCABULARY * 4, WIDTH)
        self.attention = mlp(4 * WIDTH, 16, 1, activation=nn.Sigmoid)
        self.top = nn.Sequential(nn.Linear(3 * WIDTH, 16), Dice(16), nn.Linear(16, 1))

    def forward(self, history, target):
        keys, query = self.items(history), self.items(target)
        queries = query.unsqueeze(1).expand(-1, keys.shape[1], -1)
        scores = self.attention(torch.cat([queries, keys, queries - keys, queries * keys], -1)).squeeze(-1)
        scores = scores.masked_fill(history == 0, -1e9)
        interest = torch.bmm(torch.softmax(scores, 1).unsqueeze(1), keys).squeeze(1)
        return torch.sigmoid(self.top(torch.cat([interest, query, interest * query], -1))).squeeze(-1)


class Dien(nn.Module):
    """Interest by a GRU; attention weights its states (AIGRU)."""

    def __init__(self):
        super().__init__()
        self.items = nn.Embedding(VOCABULARY * 4, WIDTH)
        self.extract = nn.GRU(WIDTH, WIDTH, batch_first=True)
        self.evolve = nn.GRU(WIDTH, WIDTH, batch_first=True)
        self.bilinear = nn.Linear(WIDTH, WIDTH, bias=False)
        self.top = mlp(2 * WIDTH, 16, 1)

    def forward(self, history, target):
        states, _ = self.extract(self.items(history))
        query = self.items(target)
        scores = torch.softmax((self.bilinear(states) * query.unsqueeze(1)).sum(-1), -1)
        _, last = self.evolve(states * scores.unsqueeze(-1))
        return torch.sigmoid(self.top(torch.cat([last.squeeze(0), query], 1)))


class SasRec(nn.Module):
    def __init__(self):
        super().__init__()
        self.items = nn.Embedding(VOCABULARY * 4, 16)
        self.positions = nn.Parameter(torch.randn(1, HISTORY, 16) * 0.1)
        self.layer = nn.ModuleDict(
            {
                "norm": nn.LayerNorm(16),
                "qkv": nn.Linear(16, 48),
                "out": nn.Linear(16, 16),
                "norm2": nn.LayerNorm(16),
                "ffn": mlp(16, 32, 16, activation=nn.GELU),
            }
        )
        self.register_buffer("causal", torch.triu(torch.full((HISTORY, HISTORY), float("-inf")), 1))

    def forward(self, history, target):
        x = self.items(history) * 4.0 + self.positions
        y = self.layer["norm"](x)
        q, k, v = self.layer["qkv"](y).reshape(-1, HISTORY, 3, 2, 8).permute(2, 0, 3, 1, 4).unbind(0)
        weights = torch.softmax(q @ k.transpose(-2, -1) / 8**0.5 + self.causal, -1)
        x = x + self.layer["out"]((weights @ v).transpose(1, 2).reshape(-1, HISTORY, 16))
        x = x + self.layer["ffn"](self.layer["norm2"](x))
        return (x[:, -1] * self.items(target)).sum(-1)


class Transformer(nn.Module):
    """PyTorch's own encoder layer over the history and the target (BST)."""

    def __init__(self):
        super().__init__()
        self.items = nn.Embedding(VOCABULARY * 4, 16)
        self.encoder = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True)
        self.top = mlp(16 * (HISTORY + 1), 16, 1, activation=nn.LeakyReLU)

    def forward(self, history, target):
        x = self.items(torch.cat([history, target.unsqueeze(1)], 1))
        return self.top(self.encoder(x).flatten(1)).squeeze(1)


class Bag(nn.Module):
    def __init__(self, mode):
        super().__init__()
        self.bag = nn.EmbeddingBag(VOCABULARY * 4, WIDTH, mode=mode)
        self.top = mlp(WIDTH, 8, 1)

    def forward(self, ids):
        return self.top(self.bag(ids)).squeeze(1)


class WeightedBag(Bag):
    def __init__(self):
        super().__init__("sum")

    def forward(self, ids, weights):
        return self.top(self.bag(ids, per_sample_weights=weights)).squeeze(1)


class InBatch(nn.Module):
    """Softmax over the batch: listwise on purpose."""

    def __init__(self):
        super().__init__()
        self.top = mlp(DENSE, 8, 1)

    def forward(self, dense):
        return torch.softmax(self.top(dense).squeeze(1), 0)


def dense():
    return torch.randn(ROWS, DENSE)


def sparse(columns=SPARSE):
    return torch.randint(0, VOCABULARY, (ROWS, columns))


def history():
    ids = torch.randint(1, VOCABULARY * 4, (ROWS, HISTORY))
    ids[:, HISTORY - 2 :] = 0
    return ids


def target():
    return torch.randint(1, VOCABULARY * 4, (ROWS,))


MODELS = {
    "dlrm": (Dlrm, lambda: {"dense": dense(), "sparse": sparse()}),
    "dlrm-dcnv2": (DlrmDcn, lambda: {"dense": dense(), "sparse": sparse()}),
    "dcn": (Dcn, lambda: {"dense": dense(), "sparse": sparse()}),
    "wide-and-deep": (WideAndDeep, lambda: {"dense": dense(), "sparse": sparse()}),
    "deepfm": (DeepFm, lambda: {"sparse": sparse()}),
    "xdeepfm": (XDeepFm, lambda: {"sparse": sparse()}),
    "two-tower": (TwoTower, lambda: {"dense": dense(), "user": sparse(10), "item": sparse(6)}),
    "mmoe": (Mmoe, lambda: {"dense": dense(), "sparse": sparse()}),
    "din": (Din, lambda: {"history": history(), "target": target()}),
    "dien": (Dien, lambda: {"history": history(), "target": target()}),
    "sasrec": (SasRec, lambda: {"history": history(), "target": target()}),
    "transformer": (Transformer, lambda: {"history": history(), "target": target()}),
    "bag-sum": (lambda: Bag("sum"), lambda: {"ids": history()}),
    "bag-mean": (lambda: Bag("mean"), lambda: {"ids": history()}),
    "bag-weighted": (WeightedBag, lambda: {"ids": history(), "weights": torch.rand(ROWS, HISTORY)}),
    "in-batch-softmax": (InBatch, lambda: {"dense": dense()}),
}
