"""Small models whose inputs have something to find out."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Words(nn.Module):
    """The embedding that the models below share."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(30, 8)
        self.head = nn.Linear(8, 4)


class Translating(Words):
    """Reads a text for each word of another; lengths of their own."""

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        read, asked = self.words(source), self.words(target)
        weights = torch.softmax(asked @ read.transpose(1, 2), -1)
        return self.head(weights @ read)


class Aligned(Words):
    """Adds two texts of one length."""

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        return self.head(self.words(source) + self.words(target))


class Spoken(Words):
    """Two frames for each word, and one."""

    def forward(self, tokens: Tensor, frames: Tensor) -> Tensor:
        if frames.dim() != 3:
            raise ValueError("frames are sequences of vectors")
        heard = frames[:, 1::2] + frames[:, :-1:2] + frames[:, 2::2]
        return self.head(self.words(tokens) + heard)


class Remembering(Words):
    """A memory before the text, and a mask of both."""

    def forward(self, tokens: Tensor, memory: Tensor, mask: Tensor) -> Tensor:
        both = torch.cat([memory, self.words(tokens)], 1)
        return self.head(both * mask[:, :, None])


class Square(nn.Module):
    """Takes square images alone."""

    def __init__(self) -> None:
        super().__init__()
        self.filter = nn.Conv2d(3, 1, 1)

    def forward(self, image: Tensor) -> Tensor:
        seen = self.filter(image)
        return seen @ seen


class Merging(nn.Module):
    """Merges each four samples into one."""

    def __init__(self) -> None:
        super().__init__()
        self.filter = nn.Conv1d(2, 3, 1)

    def forward(self, sound: Tensor) -> dict[str, Tensor]:
        merged = self.filter(sound).unflatten(-1, (-1, 4)).mean(-1)
        return {"merged": merged, "again": merged.repeat_interleave(8, -1)}


class Rounding(nn.Module):
    """Halves a length, rounded down."""

    def __init__(self) -> None:
        super().__init__()
        self.filter = nn.Conv1d(2, 3, 2, stride=2)

    def forward(self, sound: Tensor) -> Tensor:
        return self.filter(sound)


class Logarithm(nn.Module):
    """Takes what has a logarithm."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(4, 2)

    def forward(self, power: Tensor, gain: Tensor) -> Tensor:
        return self.head(power.log() + gain)


class Strict(nn.Module):
    """Refuses what isn't from 0 to 1."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        if x.min() < 0 or x.max() > 1:
            raise ValueError("scale x first")
        return self.head(x)


class Choosing(Words):
    """Can do without all but the first input, and passes over the third."""

    def forward(
        self,
        tokens: Tensor,
        mask: Tensor | None = None,
        ignored: Tensor | None = None,
        labels: Tensor | None = None,
        mode: str | None = None,
    ) -> dict[str, Tensor]:
        hidden = self.words(tokens)
        if mask is not None:
            hidden = hidden.masked_fill(~mask[:, :, None], 0.0)
        found = {"logits": self.head(hidden)}
        if labels is not None:
            found["loss"] = found["logits"].mean() + labels.float().mean()
        return found


class Streaming(nn.Module):
    """Takes the state of its recurrent layer, and hands it on."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Linear(5, 6)
        self.layer = nn.LSTM(6, 7, num_layers=2, batch_first=True)

    def forward(
        self, frames: Tensor, h: Tensor, c: Tensor
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        found: tuple[Tensor, tuple[Tensor, Tensor]] = self.layer(
            self.features(frames), (h, c)
        )
        return found


class Paired(Streaming):
    """Takes the state as a tuple, which no signature has."""

    def forward(  # type: ignore[override]
        self, frames: Tensor, state: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        h, c = state
        if h.dim() != 3:
            raise ValueError("the state is that of a batch")
        return super().forward(frames, h, c)


class Starting(Streaming):
    """Can do without a state, so that frames without a batch would run, too."""

    def forward(self, frames: Tensor) -> Tensor:  # type: ignore[override]
        heard: Tensor = self.layer(self.features(frames))[0]
        return heard


class Recognising(nn.Module):
    """Takes how long each sequence of the batch is."""

    def __init__(self) -> None:
        super().__init__()
        self.filter = nn.Conv1d(4, 3, 1)

    def forward(self, sound: Tensor, sound_lengths: Tensor) -> dict[str, Tensor]:
        return {"heard": self.filter(sound), "lengths": (sound_lengths + 1) // 2}


class Placed(Words):
    """Words at learned positions, of which there are 1000."""

    def __init__(self) -> None:
        super().__init__()
        self.places = nn.Parameter(torch.zeros(1000, 8))

    def forward(self, tokens: Tensor) -> Tensor:
        return self.words(tokens) + self.places[: tokens.shape[1]]
