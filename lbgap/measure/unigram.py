"""What the frequencies of words alone say of a text: the least that a language model has to beat."""

from torch import Tensor


def unigram_perplexity(train: Tensor, test: Tensor, words: int) -> float:
    """Perplexity of a text under the frequencies of another's words, each counted once more than it occurs (Laplace).

        exp(-1/m sum_j log p(t_j)),    p(w) = (n_w + 1) / (n + words),    n_w = times that w occurs among the n of ``train``.

    Args:
        train, test: words as numbers below ``words``, (n,) and (m,).
        words: size of the vocabulary.
    Raises:
        ValueError: no test text, or a vocabulary that does not hold every word.
    """
    if not len(test):
        raise ValueError("test has 0 words; accepted is 1 or more")
    if (most := max(int(t.max()) for t in (train, test) if len(t))) >= words:
        raise ValueError(f"words is {words}; accepted is a number above every word's, here above {most}")
    frequencies = (train.bincount(minlength=words).double() + 1) / (len(train) + words)
    return float(frequencies[test].log().mean().neg().exp())
