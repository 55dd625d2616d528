"""The intervals of rates, paired losses, shares and means (intervals.txt).

Written from the statistics literature, with numpy, scipy and statsmodels; 95% throughout. By the first
word of a line:
    rate K N            low high: Wilson's score interval (statsmodels)
    student DF          the 97.5% point of Student's distribution (scipy)
    losses S            S sides; for each 9 counts of prompts, x and y from -1, 0, 1 (y runs faster). Then
                        x: value low high; x / y: value low high ("none": y may be 0). Of a side, two
                        imaginary prompts give x = 1 and x = -1 (Bonett and Price, Journal of Educational
                        and Behavioral Statistics 37, 2012), likewise y; the ratio is Fieller's
    means N M           N + M values of two sides; value low high wider: percentile bootstrap over the
                        values of each side, 2000 draws, widened to Student's distribution
    mean N              N numbers: value low high of their mean: Student's interval (scipy), to which that by
                        halves of the numbers comes down
    halves N E K        N parts' scores of E edges, of one vector, then of another: value low high of the
                        overlap of the K strongest edges of each, by its standard deviation over all
                        halves of the parts (the jackknife that leaves out half of them: Shao and Wu, Annals
                        of Statistics 17, 1989). The one that leaves out one part gives no width in the first
    overlap D N1 N2 K   log10 P(at least K shared) of random sets of N1 and N2 among D (scipy)
"""
import itertools

import numpy as np
from scipy import optimize, stats
from statsmodels.stats.proportion import proportion_confint

Z = stats.norm.ppf(0.975)


def numbers(*values):
    return " ".join(f"{v:.9g}" for v in values)


def rates():
    for n in (1, 2, 5, 10, 60, 100, 313):
        for k in sorted({0, 1, n // 3, n // 2, n - 1, n}):
            yield f"rate {k} {n} {numbers(*proportion_confint(k, n, method='wilson'))}"


def student():
    for df in (*range(1, 21), 30, 59, 100, 1000):
        yield f"student {df} {numbers(stats.t.ppf(0.975, df))}"


def weighted(side):
    """Prompts of a side as rows (x, y) with weights: 9 counts, then the imaginary ones, whose four halves
    are -1 and 1 in x and in y without telling how these go together."""
    cells = [(x, y) for x in (-1, 0, 1) for y in (-1, 0, 1)]
    rows = cells + [(x, y) for x in (-1, 1) for y in (-1, 1)]
    return np.array(rows, float), np.array([*side, .5, .5, .5, .5])


def mean_and_variance(sides, r):
    """Of x - r y: the mean of the sides' means, and the variance of that."""
    mean = variance = 0
    for side in sides:
        rows, weight = weighted(side)
        value, n = rows @ [1, -r], weight.sum()
        m = (weight * value).sum() / n
        mean += m / len(sides)
        variance += (weight * (value - m) ** 2).sum() / n / n / len(sides) ** 2
    return mean, variance


def raw(sides, column):
    cells = np.array([(x, y) for x in (-1, 0, 1) for y in (-1, 0, 1)], float)
    return np.mean([np.array(s) @ cells[:, column] / sum(s) for s in sides])


def losses(rng):
    cases = [[[0] * 8 + [60]] * 2,                       # all lost, of all
             [[0] * 4 + [60] + [0] * 4] * 2,             # nothing changes
             [[0] * 5 + [60] + [0] * 3] * 2,             # nothing lost of all
             [[0] * 8 + [1]] * 2, [[0] * 5 + [1, 0, 0, 0]],    # one prompt
             [[0] * 8 + [59], [0] * 5 + [1, 0, 0, 59]],
             [[0, 0, 0, 0, 0, 90, 0, 0, 10], [0, 0, 1, 0, 5, 70, 0, 0, 24]]]
    for n in (5, 10, 30, 60, 100, 160):
        for _ in range(6):
            shape = rng.dirichlet([.2, .2, .5, .3, 1, 3, .2, .5, 3], 2)
            cases.append([rng.multinomial(n, p).tolist() for p in shape])
    for sides in cases:
        def gap(r):
            m, v = mean_and_variance(sides, r)
            return m * m - Z * Z * v
        m, v = mean_and_variance(sides, 0)
        half = Z * np.sqrt(v)
        text = numbers(raw(sides, 0), max(-1, m - half), min(1, m + half))
        swapped = [np.array(s).reshape(3, 3).T.ravel().tolist() for s in sides]
        my, vy = mean_and_variance(swapped, 0)
        share = "none"
        if my - Z * np.sqrt(vy) > 1e-9:
            middle = m / my                                  # there x - r y has the mean 0
            ends = [optimize.brentq(gap, middle, middle + s * 1e7, xtol=1e-13, rtol=1e-13) for s in (-1, 1)]
            share = numbers(raw(sides, 0) / raw(sides, 1), *ends)
        counts = " ".join(str(c) for s in sides for c in s)
        yield f"losses {len(sides)} {counts} {text} {share}"


class Random:
    """steer.c's random_unit: xorshift64*."""

    def __init__(self, state):
        self.state = state

    def unit(self):
        x = self.state
        x ^= x >> 12
        x ^= x << 25 & (1 << 64) - 1
        x ^= x >> 27
        self.state = x
        return (x * 0x2545F4914F6CDD1D % (1 << 64) >> 11) * 2.0 ** -53


def means(rng):
    cases = [([], []), ([.5], []), ([.5], [.7]), ([.9] * 6, [.9] * 6), ([.2, .4], [.6, .9]), ([], [.1, .5, .9])]
    for n, m in ((3, 3), (6, 6), (10, 10), (20, 7), (40, 40)):
        cases.append((rng.normal(.8, .2, n).tolist(), rng.beta(8, 2, m).tolist()))
    for a, b in cases:
        a, b = [[float(f"{v:.6g}") for v in side] for side in (a, b)]
        sides = [np.array(s) for s in (a, b) if s]
        least = min((len(s) for s in sides), default=0)
        text = "nan nan nan 1"
        if least:
            value = np.mean([s.mean() for s in sides])
            text = numbers(value, -np.inf, np.inf, 1)
        if least > 1:
            random, drawn = Random(0x9E3779B97F4A7C15), []
            for _ in range(2000):
                drawn.append(np.mean([np.mean([s[int(random.unit() * len(s))] for _ in s]) for s in sides]))
            drawn.sort()
            wider = stats.t.ppf(.975, least - 1) / Z * np.sqrt(least / (least - 1))
            low, high = drawn[49], drawn[1950]
            if len(sides) == 2 and np.std(np.concatenate(sides)) > 0:      # another program's bootstrap
                other = stats.bootstrap(sides, lambda x, y, axis: (x.mean(axis) + y.mean(axis)) / 2, method="percentile",
                                        n_resamples=4000, rng=7).confidence_interval
                assert max(abs(low - other.low), abs(high - other.high)) < .12 * (high - low), (low, high, other)
            text = numbers(value, value + wider * (low - value), value + wider * (high - value), wider)
        yield f"means {len(a)} {len(b)} {numbers(*a, *b)} {text}".replace("  ", " ")


def overlaps():
    for d, n1, n2, k in ((128, 20, 20, 3), (128, 60, 70, 45), (896, 69, 51, 19), (896, 400, 380, 150), (2304, 120, 118, 30),
                         (3072, 1500, 1500, 730)):
        yield f"overlap {d} {n1} {n2} {k} {numbers(np.log10(stats.hypergeom.sf(k - 1, d, n1, n2)))}"


def by_halves(parts, statistic):
    """parts [N][...]: value, low and high of a statistic of some of them."""
    n, r = len(parts), len(parts) // 2
    halves = [statistic(parts[list(some)]) for some in itertools.combinations(range(n), r)]
    value, wide = statistic(parts), stats.t.ppf(.975, n - 1) * np.sqrt(np.var(halves) * r / (n - r))
    return value, max(0, value - wide), min(1, value + wide)


def student_means(rng):
    for n in (2, 3, 7, 10):
        x = np.array([float(f"{v:.6g}") for v in rng.normal(.5, .05, n)])
        low, high = stats.t.interval(.95, n - 1, x.mean(), stats.sem(x))
        assert np.allclose(by_halves(x, np.mean), (x.mean(), max(0, low), min(1, high)))
        yield f"mean {n} {numbers(*x, x.mean(), max(0, low), min(1, high))}"


def overlap_of(strong):
    """Of parts' scores [parts][2][edges]: the share of each vector's `strong` strongest edges that both have."""
    def overlap(scores):
        a, b = [set(np.argsort(-np.abs(x))[:strong]) for x in scores.sum(0)]
        return len(a & b) / strong
    return overlap


def halves(rng):
    """Two vectors' scores: the same but for a factor an edge, and the parts' noise."""
    seen = 0
    for n, edges, strong in ((10, 20, 6), (10, 20, 6), (10, 20, 5), (9, 20, 5), (5, 20, 6), (2, 20, 6)):
        overlap, width = overlap_of(strong), 1
        while width:
            size = rng.exponential(1, edges) ** 2
            both = size * np.exp(rng.normal(0, .4, (2, edges))) * rng.choice((-1, 1), edges)
            x = both + size ** .5 * .3 * rng.normal(0, 1, (n, 2, edges))
            x = np.array([float(f"{v:.4g}") for v in x.ravel()]).reshape(x.shape)
            without = [overlap(np.delete(x, i, 0)) for i in range(n)]
            value, low, high = by_halves(x, overlap)
            width = np.ptp(without) if not seen else 0      # of the jackknife
            width += high - low < 1e-6                      # a case that says nothing
        seen += 1
        yield f"halves {n} {edges} {strong} {numbers(*x[:, 0].ravel(), *x[:, 1].ravel(), value, low, high)}"


def intervals_group():
    rng = np.random.default_rng(11)
    return ["# Intervals: see tools/golden_intervals.py.", *rates(), *student(), *losses(rng), *means(rng),
            *overlaps(), *student_means(rng), *halves(rng)]
