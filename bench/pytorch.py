"""The training step of bench.train and bench.gpu in PyTorch, as its users write it.

It uses nothing of Keras or of this suite. PyTorch is imported when a function is called.
"""

from bench import LABELS


def densenet121():
    """Build DenseNet-121 (Huang et al. 2017) with the parameters of keras.applications."""
    import torch
    from torch import nn

    class Layer(nn.Module):
        def __init__(self, channels):
            super().__init__()
            self.layers = nn.Sequential(
                *[nn.BatchNorm2d(channels), nn.ReLU(inplace=True)],
                nn.Conv2d(channels, 128, 1, bias=False),
                *[nn.BatchNorm2d(128), nn.ReLU(inplace=True)],
                nn.Conv2d(128, 32, 3, padding=1, bias=False),
            )

        def forward(self, x):
            return torch.cat([x, self.layers(x)], 1)

    channels = 64
    layers = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(inplace=True)]
    layers += [nn.MaxPool2d(3, 2, 1)]
    for block, depth in enumerate((6, 12, 24, 16)):
        if block:
            layers += [nn.BatchNorm2d(channels), nn.ReLU(inplace=True)]
            layers += [nn.Conv2d(channels, channels // 2, 1, bias=False), nn.AvgPool2d(2)]
            channels //= 2
        layers += [Layer(channels + 32 * i) for i in range(depth)]
        channels += 32 * depth
    layers += [nn.BatchNorm2d(channels), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1)]
    model = nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels, LABELS))
    assert sum(p.numel() for p in model.parameters()) == 6_953_856 + 1025 * LABELS
    return model


def network(backbone: str):
    """Build DenseNet-121 as written here, or another network by timm."""
    if backbone == "densenet121":
        return densenet121()
    import timm

    name = {"nasnetlarge": "nasnetalarge"}.get(backbone, backbone)
    return timm.create_model(name, num_classes=LABELS)


def steps(way):
    """Train with channels last, Adam and autocast for bfloat16; on a GPU with torch.compile."""
    import torch
    from torch import nn

    on = "cpu" if way.device == "cpu" else "cuda"
    torch.set_float32_matmul_precision("high" if way.precision == "tf32" else "highest")
    torch.backends.cudnn.allow_tf32 = way.precision == "tf32"
    torch.manual_seed(0)
    images = torch.randint(0, 256, (way.batch, 1, way.size, way.size), dtype=torch.uint8).to(on)
    targets = torch.randint(0, 2, (way.batch, LABELS)).float().to(on)

    def prepare():
        model = network(way.backbone).to(on).to(memory_format=torch.channels_last).train()
        if on == "cuda":
            model = torch.compile(model)
        adam, loss = torch.optim.Adam(model.parameters(), 1e-4), nn.BCEWithLogitsLoss()

        def step(steps):
            for _ in range(steps):
                x = (images / 127.5 - 1).expand(-1, 3, -1, -1)
                x = x.contiguous(memory_format=torch.channels_last)
                with torch.autocast(on, torch.bfloat16, enabled=way.precision == "bfloat16"):
                    logits = model(x)
                adam.zero_grad()
                loss(logits.float(), targets).backward()
                adam.step()
            if on == "cuda":
                torch.cuda.synchronize()

        return step

    return prepare
