"""Makes resnet_stem.h5: narrow networks of torchvision's own blocks behind the ImageNet stem, as test_network expects them:
initial tensors, outputs, loss, every gradient, running statistics, three SGD steps, outputs in evaluation mode.

Run with Debian 12's python3-torch 1.13, python3-torchvision 0.14 and python3-h5py: make_resnet_stem.py [OUT.h5]"""
import os
import sys

import h5py
import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torchvision.models.resnet import BasicBlock, Bottleneck

torch.manual_seed(5)
torch.set_num_threads(1)
torch.set_default_dtype(torch.float64)  # the numbers are exact to single precision, in which they are kept
OUT = sys.argv[1] if len(sys.argv) > 1 else os.path.join(os.path.dirname(os.path.abspath(__file__)), "resnet_stem.h5")


class Encoder(nn.Module):
    """torchvision.models.ResNet with `width` channels in the first stage instead of 64."""

    def __init__(self, block, counts, width, channels):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        planes = width
        for stage, count in enumerate(counts):
            blocks = []
            for number in range(count):
                inner, stride = width << stage, 2 if stage and not number else 1
                down = None
                if stride != 1 or planes != inner * block.expansion:
                    down = nn.Sequential(nn.Conv2d(planes, inner * block.expansion, 1, stride, bias=False),
                                         nn.BatchNorm2d(inner * block.expansion))
                blocks.append(block(planes, inner, stride, down))
                planes = inner * block.expansion
            setattr(self, f"layer{stage + 1}", nn.Sequential(*blocks))
        self.width = planes

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 3, 2, 1)
        for stage in range(1, 5):
            x = getattr(self, f"layer{stage}")(x)
        return x.mean((2, 3))


class Net(nn.Module):
    def __init__(self, block, counts, width, channels, classes, projection):
        super().__init__()
        self.encoder = Encoder(block, counts, width, channels)
        self.fc = nn.Linear(self.encoder.width, classes)
        self.projection_head = nn.Linear(self.encoder.width, projection)
        self.bnl = nn.BatchNorm1d(projection)

    def forward(self, x):
        e = self.encoder(x)
        return e, self.bnl(self.projection_head(e)), self.fc(e)


def symmetric_cross_entropy(z, y):
    p = F.softmax(z, 1).clamp(1e-7, 1)
    target = F.one_hot(y, z.shape[1]).double().clamp(1e-4, 1)
    return (F.cross_entropy(z, y, reduction="none") - (p * target.log()).sum(1)).mean()


def contrast(a, b, temperature):
    z = F.normalize(torch.cat([a, b]), dim=1)
    n = len(a)
    s = (z @ z.t() / temperature).masked_fill(torch.eye(2 * n, dtype=torch.bool), float("-inf"))
    return F.cross_entropy(s, (torch.arange(2 * n) + n) % (2 * n))


with h5py.File(OUT, "w", libver="earliest", track_order=False) as file:
    def put(path, value):
        file.create_dataset(path, data=value.detach().numpy().astype("i4" if value.dtype == torch.int32 else "f4")
                            if torch.is_tensor(value) else value, track_times=False)

    for name, block, counts, width, size, classes in (("stem18", BasicBlock, (2, 2, 2, 2), 4, 36, 10),
                                                      ("stem50", Bottleneck, (3, 4, 6, 3), 2, 64, 6)):
        net, n, g = Net(block, counts, width, 3, classes, 16), 8, f"net/{name}/"
        for module in net.modules():
            if hasattr(module, "running_mean"):
                module.weight.data.uniform_(.5, 1.5)
                module.bias.data.uniform_(-.2, .2)
        for key, module in net.named_modules():
            if key.endswith("bn3"):  # otherwise rounding grows a thousandfold over 50 layers, in PyTorch, too
                module.weight.data.uniform_(.1, .3)
        for tensor in net.parameters():
            tensor.data = tensor.data.float().double()
        x, y = torch.randn(n, 3, size, size).float().double(), torch.randint(0, classes, (n,))
        put(g + "x", x)
        put(g + "label", y.int())

        def state(sub, only=""):
            for k, v in net.state_dict().items():
                if "num_batches" not in k and only in k:
                    put(g + f"{sub}/{k}", v.clone())

        def loss_of(q, z):
            return symmetric_cross_entropy(z, y) + 0.1 * contrast(q[:n // 2], q[n // 2:], 0.5)

        state("initial")
        e, q, z = net(x)
        loss = loss_of(q, z)
        loss.backward()
        for k, v in (("embedding", e), ("projection", q), ("logits", z), ("loss", loss)):
            put(g + k, v)
        for k, v in net.named_parameters():
            put(g + f"grad/{k}", v.grad.clone())
        state("after_forward", "running")
        heads = [*net.fc.parameters(), *net.projection_head.parameters(), *net.bnl.parameters()]
        optimizer = torch.optim.SGD([dict(params=net.encoder.parameters(), lr=0.02), dict(params=heads, lr=0.2)], lr=0.1,
                                    momentum=0.9, weight_decay=5e-4)
        losses = []
        for _ in range(3):
            _, q, z = net(x)
            loss = loss_of(q, z)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(float(loss))
        put(g + "sgd_losses", np.array(losses, np.float32))
        state("after_sgd")
        net.eval()
        with torch.no_grad():
            put(g + "eval_logits", net(x)[2])
