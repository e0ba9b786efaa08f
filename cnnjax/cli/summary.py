"""The `summary` command."""

from dataclasses import dataclass

from rich.markup import escape
from rich.table import Table

from cnnjax.errors import ArgumentError


@dataclass(frozen=True)
class Summary:
    """Print a network's layers, output shapes and parameters, as Keras does.

    Example: cnnjax summary --model lenet-swish
    """

    model: str = "keras-cnn"
    """keras-cnn, lenet-swish, or a module of your own as package.module:NAME."""
    image_shape: tuple[int, int, int] = (28, 28, 1)
    """Height, width and channels of the images."""

    def __call__(self) -> None:
        """Print the table and the totals."""
        from cnnjax.deploy.layers import layers
        from cnnjax.deploy.modules import modules
        from cnnjax.models import ConvNet
        from cnnjax.report import console
        from cnnjax.runs.recipe import model_named

        if min(self.image_shape) < 1:
            raise ArgumentError(f"--image-shape {self.image_shape} must have three numbers above 0")
        model = model_named(self.model)
        if isinstance(model, ConvNet):
            walk = layers(model, self.image_shape)
            rows = [(row.name, row.kind, row.shape, row.parameters, 0) for row in walk]
        else:
            rows = modules(model, self.image_shape)
        table = Table("Layer (type)", "Output Shape", "Param #", title=f'Model: "{self.model}"')
        table.columns[2].justify = "right"
        for name, kind, shape, parameters, fixed in rows:
            sizes = "?" if shape is None else ", ".join(["None", *map(str, shape)])
            table.add_row(escape(f"{name} ({kind})"), f"({sizes})", f"{parameters + fixed:,}")
        trained, fixed = (sum(column) for column in list(zip(*rows, strict=True))[3:])
        screen = console()
        screen.print(table)
        totals = ("Total", trained + fixed), ("Trainable", trained), ("Non-trainable", fixed)
        for label, number in totals:
            screen.print(f"{label} params: {number:,}", highlight=False)
