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
    jackknife N VALUE   N values without one of N numbers each: low high about VALUE. Of a mean that is
                        Student's interval (scipy); by squares about their mean otherwise
    overlap D N1 N2 K   log10 P(at least K shared) of random sets of N1 and N2 among D (scipy)
"""
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


def jackknives(rng):
    for n in (2, 3, 10, 30):
        x = np.array([float(f"{v:.6g}") for v in rng.normal(.8, .1, n)])
        low, high = stats.t.interval(.95, n - 1, x.mean(), stats.sem(x))
        yield f"jackknife {n} {numbers(x.mean(), *(x.sum() - x) / (n - 1), low, high)}"


def intervals_group():
    rng = np.random.default_rng(11)
    return ["# Intervals: see tools/golden_intervals.py.", *rates(), *student(), *losses(rng), *means(rng),
            *overlaps(), *jackknives(rng)]
