/* What is claimed, and on what numbers: intervals against tools/golden_intervals.py, how often they
 * hold what they should, every verdict's outcomes, controls, and which prompts judge what. */

/* ---------------------------------------------------------------- intervals */

static int nearly(double a, double b) {
    if (isnan(a) || isnan(b))
        return isnan(a) && isnan(b);
    if (isinf(a) || isinf(b))
        return a == b;
    return fabs(a - b) <= 1e-6 * fmax(1, fabs(b));
}

static void check_estimate(const char *line, estimate x, double value, double low, double high) {
    CHECK_THAT(nearly(x.value, value) && nearly(x.low, low) && nearly(x.high, high),
               "%.60s: %.9g [%.9g, %.9g], wanted %.9g [%.9g, %.9g]", line, x.value, x.low, x.high,
               value, low, high);
}

/* 9 counts of prompts of a side, x and y from -1, 0, 1. */
static side_sums sums_of_counts(const double *count) {
    side_sums s = {0};
    for (int x = -1; x < 2; x++)
        for (int y = -1; y < 2; y++) {
            int n = (int)*count++;
            s.n += n;
            s.x += n * x;
            s.y += n * y;
            s.xx += n * x * x;
            s.yy += n * y * y;
            s.xy += n * x * y;
        }
    return s;
}

static void check_losses(const char *line, const double *x, int n) {
    int sides = (int)x[0], at = 1 + 9 * sides;
    side_sums sums[2] = {{0}};
    for (int k = 0; k < sides; k++)
        sums[k] = sums_of_counts(x + 1 + 9 * k);
    loss_moments m = moments_of(sums, sides);
    check_estimate(line, loss_estimate(m), x[at], x[at + 1], x[at + 2]);
    estimate share = share_estimate(m);
    if (n == at + 6)
        check_estimate(line, share, x[at + 3], x[at + 4], x[at + 5]);
    else
        CHECK_THAT(isinf(share.low) && isinf(share.high), "%.60s: a share of nothing", line);
}

static void check_means(const char *line, const double *x) {
    int n[2] = {(int)x[0], (int)x[1]};
    const double *sides[2] = {x + 2, x + 2 + n[0]}, *wanted = sides[1] + n[1];
    estimate y = bootstrap(sides, NULL, n);
    double ratio = isfinite(wanted[3]) ? y.wider / wanted[3] : 1;
    /* Student's factor is an expansion in the program, and right to 0.2%; the rest is exact. */
    CHECK_THAT(fabs(ratio - 1) < 2e-3, "%.60s: wider by %g", line, y.wider);
    if (isfinite(y.low)) {
        y.low = y.value + (y.low - y.value) / ratio;
        y.high = y.value + (y.high - y.value) / ratio;
    }
    check_estimate(line, y, wanted[0], wanted[1], wanted[2]);
}

/* Parts' scores of edges, of two vectors: the share of the strongest edges of each, by the parts
 * that are bits of `set`, that both have. */
static double overlap_of_parts(const double *a, const double *b, int n, int edges, int strong,
                               int set) {
    double sum[2][64] = {{0}}, sorted[64], least[2];
    int shared = 0;
    for (int k = 0; k < 2; k++) {
        for (int i = 0; i < n; i++)
            for (int j = 0; j < edges && set >> i & 1; j++)
                sum[k][j] += (k ? b : a)[i * edges + j];
        for (int j = 0; j < edges; j++)
            sorted[j] = sum[k][j] = fabs(sum[k][j]);
        qsort(sorted, (size_t)edges, sizeof *sorted, by_size);
        least[k] = sorted[edges - strong];
    }
    for (int j = 0; j < edges; j++)
        shared += sum[0][j] >= least[0] && sum[1][j] >= least[1];
    return (double)shared / strong;
}

/* What halves of n parts say of that overlap; of the parts' mean, where there is no b. */
static estimate estimate_by_halves(const double *a, const double *b, int n, int edges, int strong) {
    double whole = 0, sum = 0, squares = 0;
    int halves = 0;
    for (int set = 1; set < 1 << n; set++) {
        double x = 0;
        if (b)
            x = overlap_of_parts(a, b, n, edges, strong, set);
        for (int i = 0; i < n && !b; i++)
            x += (set >> i & 1) * a[i] / __builtin_popcount((unsigned)set);
        whole = x; /* the last set is all */
        if (__builtin_popcount((unsigned)set) != n / 2)
            continue;
        sum += x;
        squares += x * x;
        halves++;
    }
    return by_halves(whole, sum / halves, squares / halves, n);
}

static void check_halves(const char *line, estimate y, const double *wanted) {
    double below = wanted[0] - wanted[1], above = wanted[2] - wanted[0];
    CHECK_THAT(nearly(y.value, wanted[0]) && y.high > y.low &&
                   fabs(y.value - y.low - below) <= 2e-3 * below + 1e-9 &&
                   fabs(y.high - y.value - above) <= 2e-3 * above + 1e-9,
               "%.60s: %.9g [%.9g, %.9g], wanted %.9g [%.9g, %.9g]", line, y.value, y.low, y.high,
               wanted[0], wanted[1], wanted[2]);
}

static void test_intervals(void) {
    golden_lines file = open_golden("tests/golden/intervals.txt");
    int seen[7] = {0};
    while (golden_line(&file)) {
        double x[512];
        const char *line = file.line;
        int n = parse_doubles(file.rest, x, 512);
        if (!strcmp(file.word, "rate")) {
            check_estimate(line, wilson((int)x[0], (int)x[1]), x[0] / x[1], x[2], x[3]);
            seen[0]++;
        } else if (!strcmp(file.word, "student")) {
            CHECK_THAT(fabs(student95((int)x[0]) - x[1]) < 2e-3 * x[1], "%.40s: %.7g", line,
                       student95((int)x[0]));
            seen[1]++;
        } else if (!strcmp(file.word, "losses")) {
            check_losses(line, x, n);
            seen[2]++;
        } else if (!strcmp(file.word, "means")) {
            check_means(line, x);
            seen[3]++;
        } else if (!strcmp(file.word, "overlap")) {
            double p = log10(chance_of_overlap((int)x[0], (int)x[1], (int)x[2], (int)x[3]));
            CHECK_THAT(fabs(p - x[4]) < 1e-6 * fmax(1, fabs(x[4])), "%.60s: %.9g", line, p);
            seen[4]++;
        } else if (!strcmp(file.word, "mean")) {
            int parts = (int)x[0];
            check_halves(line, estimate_by_halves(x + 1, NULL, parts, 0, 0), x + 1 + parts);
            seen[5]++;
        } else if (!strcmp(file.word, "halves")) {
            int parts = (int)x[0], edges = (int)x[1];
            const double *a = x + 3, *b = a + parts * edges;
            check_halves(line, estimate_by_halves(a, b, parts, edges, (int)x[2]),
                         b + parts * edges);
            seen[6]++;
        }
    }
    estimate alone = by_halves(0.5, 0.5, 0.25, 1);
    CHECK_THAT(alone.low == 0 && alone.high == 1, "one part says something");
    CHECK_THAT(seen[0] > 20 && seen[1] > 20 && seen[2] > 40 && seen[3] > 8 && seen[4] > 4 &&
                   seen[5] > 3 && seen[6] > 5,
               "%d rates, %d of Student, %d losses, %d means, %d overlaps, %d and %d by halves",
               seen[0], seen[1], seen[2], seen[3], seen[4], seen[5], seen[6]);
}

/* ---------------------------------------------------------------- coverage */

/* A world of prompts: how often steering works, and what of it a loss or its absence leaves. */
typedef struct {
    double steered, frozen, plain, alike;
} world;

static int lives(double p, double alike, int like, uint64_t *state) {
    double copies = random_unit(state), own = random_unit(state);
    return copies < alike ? like : own < p;
}

/* Truth of the two losses of a world: steered minus frozen, steered minus plain. */
static double true_loss(world w, double left) {
    return w.steered - (w.alike * w.steered + (1 - w.alike) * left);
}

/* Of the losses of one side, of both, and of their share, how many intervals hold the truth. */
static void cover_losses(const world side[2], int n, int rounds, uint64_t *state) {
    double loss_true = 0, most_true = 0;
    int one = 0, mean = 0, most = 0, share = 0, told = 0;
    for (int k = 0; k < 2; k++) {
        loss_true += true_loss(side[k], side[k].frozen) / 2;
        most_true += true_loss(side[k], side[k].plain) / 2;
    }
    for (int round = 0; round < rounds; round++) {
        side_sums sums[2] = {{0}}, swapped[2];
        for (int k = 0; k < 2; k++) {
            sums[k].n = n;
            for (int i = 0; i < n; i++) {
                int steered = random_unit(state) < side[k].steered;
                int x = steered - lives(side[k].frozen, side[k].alike, steered, state);
                int y = steered - lives(side[k].plain, side[k].alike, steered, state);
                sums[k].x += x;
                sums[k].xx += x * x;
                sums[k].y += y;
                sums[k].yy += y * y;
                sums[k].xy += x * y;
            }
            swapped[k] = (side_sums){n, sums[k].y, sums[k].x, sums[k].yy, sums[k].xx, sums[k].xy};
        }
        loss_moments m = moments_of(sums, 2), alone = moments_of(sums, 1);
        loss_moments y = moments_of(swapped, 2);
        estimate a = loss_estimate(alone), b = loss_estimate(m), c = loss_estimate(y);
        estimate r = share_estimate(m);
        double first = true_loss(side[0], side[0].frozen), ratio = loss_true / most_true;
        one += a.low <= first + 1e-12 && a.high >= first - 1e-12;
        mean += b.low <= loss_true + 1e-12 && b.high >= loss_true - 1e-12;
        most += c.low <= most_true + 1e-12 && c.high >= most_true - 1e-12;
        told += isfinite(r.low);
        share += isfinite(r.low) && r.low <= ratio + 1e-9 && r.high >= ratio - 1e-9;
    }
    double least = fmin(fmin(one, mean), most) / rounds;
    CHECK_THAT(least >= 0.93, "n %d, %g %g %g: one side %d, mean %d, at most %d of %d", n,
               side[0].steered, side[0].frozen, side[0].plain, one, mean, most, rounds);
    CHECK_THAT(told < rounds / 4 || share >= 0.93 * told, "n %d, %g %g %g: share %d of %d", n,
               side[0].steered, side[0].frozen, side[0].plain, share, told);
}

/* Of a mean of both sides: normal, uniform and skewed values. */
static double draw_value(int kind, uint64_t *state) {
    if (kind == 0)
        return random_normal(state);
    double u = random_unit(state);
    return kind == 1 ? u - 0.5 : pow(u, 0.25) - 0.8; /* the last has mean 0, too, and a left tail */
}

static void cover_means(int n, int kind, int rounds, uint64_t *state) {
    double a[64], b[64];
    const double *const sides[2] = {a, b};
    int hits = 0;
    for (int round = 0; round < rounds; round++) {
        for (int i = 0; i < n; i++) {
            a[i] = draw_value(kind, state);
            b[i] = draw_value(kind, state);
        }
        estimate x = bootstrap(sides, NULL, (const int[]){n, n});
        hits += x.low <= 0 && x.high >= 0;
    }
    CHECK_THAT(hits >= 0.93 * rounds, "means of %d + %d, kind %d: %d of %d", n, n, kind, hits,
               rounds);
}

/* Of the overlap of two vectors' strongest edges, whose scores differ by a factor e^(apart *
 * normal) an edge, how many intervals hold its mean over all rounds. */
static void cover_overlaps(double apart, double noise, uint64_t *state) {
    enum { ROUNDS = 200, N = 10, EDGES = 60, STRONG = 12 };

    static double x[2][N * EDGES];
    double truth[2][EDGES], scale[EDGES], mean = 0;
    estimate found[ROUNDS];
    int hits = 0;
    for (int j = 0; j < EDGES; j++) {
        double size = exp(1.5 * random_normal(state));
        scale[j] = noise * sqrt(size);
        for (int k = 0; k < 2; k++)
            truth[k][j] = size * exp(apart * random_normal(state));
    }
    for (int round = 0; round < ROUNDS; round++) {
        for (int i = 0; i < N * EDGES; i++)
            for (int k = 0; k < 2; k++)
                x[k][i] = truth[k][i % EDGES] + scale[i % EDGES] * random_normal(state);
        found[round] = estimate_by_halves(x[0], x[1], N, EDGES, STRONG);
        mean += found[round].value / ROUNDS;
    }
    for (int round = 0; round < ROUNDS; round++)
        hits += found[round].low <= mean && found[round].high >= mean;
    CHECK_THAT(hits >= 0.93 * ROUNDS, "overlaps, apart %g, noise %g: %d of %d", apart, noise, hits,
               ROUNDS);
}

static void test_coverage(void) {
    static const world worlds[][2] = {{{0.99, 0.95, 0.02, 0}, {0.99, 0.9, 0.03, 0}},
                                      {{0.99, 0.2, 0.02, 0}, {0.99, 0.4, 0.03, 0}},
                                      {{0.8, 0.6, 0.1, 0.3}, {0.9, 0.8, 0.4, 0.3}},
                                      {{0.99, 0.01, 0.05, 0}, {0.97, 0.02, 0.01, 0}},
                                      {{0.7, 0.65, 0.3, 0.5}, {0.9, 0.9, 0.6, 0.5}},
                                      {{0.95, 0.5, 0.1, 0.5}, {0.95, 0.5, 0.1, 0.5}},
                                      {{0.82, 0.63, 0.1, 0.5}, {0.99, 0.99, 0.49, 0.5}},
                                      {{1, 0, 0, 0}, {1, 0, 0, 0}},
                                      {{1, 1, 0, 0}, {1, 1, 0, 0}}};
    static const int sizes[] = {10, 20, 60, 160};
    uint64_t state = 77;
    for (size_t w = 0; w < sizeof worlds / sizeof *worlds; w++)
        for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
            cover_losses(worlds[w], sizes[i], 2000, &state);
    for (int kind = 0; kind < 3; kind++) {
        cover_means(3, kind, 400, &state);
        cover_means(6, kind, 400, &state);
        cover_means(20, kind, 400, &state);
    }
    cover_overlaps(0.2, 0.5, &state);
    cover_overlaps(0.4, 2, &state);
    cover_overlaps(0.6, 1, &state);
}

/* ---------------------------------------------------------------- losses of cells */

/* Cells made by hand: refusals as text, '1' for each prompt that is refused. */
static condition hand_cell(steer_prompts *p, const char *refusals, unsigned char *room) {
    condition x = {.prompts = p, .n = (int)strlen(refusals), .refuses = room};
    p->n = 1 << 20;
    for (int i = 0; i < x.n; i++) {
        room[i] = refusals[i] == '1';
        x.n_refused += room[i];
    }
    x.refused = (double)x.n_refused / x.n;
    return x;
}

static void test_losses(void) {
    steer_prompts p = {0};
    unsigned char room[6][16];
    /* Harmless prompts are steered to refuse, harmful ones not to. */
    condition steered[2] = {hand_cell(&p, "0000000001", room[0]),
                            hand_cell(&p, "1111111110", room[1])};
    condition plain[2] = {hand_cell(&p, "1111111111", room[2]),
                          hand_cell(&p, "0000000000", room[3])};
    condition frozen[2] = {hand_cell(&p, "0000011110", room[4]),
                           hand_cell(&p, "1111111101", room[5])};
    estimate most = points_lost(steered, plain), some = points_lost(steered, frozen);
    CHECK_THAT(nearly(most.value, 90) && most.n == 10, "%g points to lose", most.value);
    CHECK_THAT(nearly(some.value, 50 * (3 / 10.0 + 0)), "%g points lost", some.value);
    CHECK_THAT(some.low < some.value && some.value < some.high, "[%g, %g]", some.low, some.high);
    estimate share = share_of_loss(steered, frozen, steered, plain);
    CHECK_THAT(nearly(share.value, some.value / most.value) && share.low < share.value, "share %g",
               share.value);
    /* 27.25, which has two neighbours of one decimal, and no 27.250000000000004. */
    CHECK_THAT(in_points((estimate){0.2725, 0.2725, -0.2725, 1, 400}).value == 27.25 &&
                   in_points((estimate){0.2725, 0.2725, -0.2725, 1, 400}).high == -27.25,
               "a tie between decimals");
    /* What both lose of the same prompts is known better than each alone. */
    estimate same = share_of_loss(steered, plain, steered, plain);
    CHECK_THAT(nearly(same.value, 1) && same.low > 0.6 && same.high < 1.6, "all of it: [%g, %g]",
               same.low, same.high);
    estimate back = points_lost(frozen, steered);
    estimate change = more_refused(&steered[HARMLESS], &frozen[HARMLESS]);
    CHECK_THAT(nearly(back.value, -some.value) && nearly(back.low, -some.high), "back: %g",
               back.value);
    CHECK_THAT(nearly(change.value, 0) && change.low < 0 && change.high > 0, "a change of %g",
               change.value);
    condition fewer[2] = {hand_cell(&p, "11111", room[2]), hand_cell(&p, "00000", room[3])};
    CHECK_THAT(points_lost(steered, fewer).n == 5 && nearly(points_lost(steered, fewer).value, 100),
               "the first five");
}

/* ---------------------------------------------------------------- verdicts */

static estimate about(double value, double margin, int n) {
    return (estimate){value, value - margin, value + margin, 1, n};
}

/* Of a finding's numbers in the report, how many are not surely where the claim wants them. */
static int numbers_amiss(const report *r, const entry *x) {
    int amiss = 0;
    for (int i = 0; i < x->n_rows; i++) {
        const datum *number = AT(r->data, datum, x->first + 5 * i);
        double low = number[1].value, high = number[2].value, bound = number[3].value;
        const char *wanted = number[1].text;
        if (isnan(low))
            low = high = number[0].value;
        if (!strcmp(wanted, "within"))
            amiss += fmax(fabs(low), fabs(high)) > bound;
        else
            amiss += !strcmp(wanted, "at least") ? low < bound : high > bound;
    }
    return amiss;
}

static void check_verdict(experiment *s, void (*conclude_it)(experiment *), const char *verdict,
                          int line) {
    conclude_it(s);
    const entry *x = AT(s->out->entries, entry, n_entries(s->out) - 1);
    CHECK_THAT(x->kind == IS_FINDING && !strcmp(x->verdict, verdict),
               "line %d: wanted \"%s\": %s; %.300s", line, verdict, x->verdict, x->text);
    int tells = strstr(x->text, "would tell") != NULL;
    CHECK_THAT(tells || strcmp(verdict, "can't be told") || strstr(x->text, "unknown") ||
                   strstr(x->text, "was answered") || strstr(x->text, "not asked"),
               "line %d: not how many: %.300s", line, x->text);
    CHECK_THAT(!strstr(x->text, "nan") && !strstr(x->text, "inf "), "line %d: no number: %.300s",
               line, x->text);
    CHECK_THAT(strcmp(verdict, "holds") || !numbers_amiss(s->out, x),
               "line %d: it holds, but not its numbers: %.300s", line, x->text);
}

/* From "holds" the share falls to "in part"; a gap fails it; a share between can't be told. */
static void check_falling(experiment *s, void (*conclude_it)(experiment *), estimate *share,
                          estimate *gap, const estimate to[4], int line) {
    *share = to[0];
    check_verdict(s, conclude_it, "holds", line);
    *share = to[1];
    check_verdict(s, conclude_it, "holds in part", line);
    *gap = to[2];
    check_verdict(s, conclude_it, "fails", line);
    *share = to[3];
    check_verdict(s, conclude_it, "can't be told", line);
}

#define FALLING(f, share, gap, to) check_falling(&s, f, share, gap, to, __LINE__)
#define VERDICT(f, verdict) check_verdict(&s, f, verdict, __LINE__)

static void test_verdicts(void) {
    steer_model m = {.config = {.d = 100, .layers = 10, .heads = 2, .kv_heads = 1}};
    tracer t = {.m = &m, .graph = steer_graph_of(&m, 2)};
    report out = {0};
    steer_error e = {0};
    experiment s = {.m = &m, .out = &out, .e = &e, .methods = 3, .t = &t};
    site_score scored = {{0, 0}, 3, -1, NULL, -5, 4, 0.05};

    /* The site: picked by the rule, passing beside it, failing it, others not asked. */
    s.reported = s.picked = scored;
    s.sites = &scored;
    VERDICT(conclude_site, "holds");
    s.picked.layer = 4;
    VERDICT(conclude_site, "holds in part");
    s.reported.kl = 0.2;
    VERDICT(conclude_site, "fails");
    s.reported = scored;
    s.reported.layer = 8;
    VERDICT(conclude_site, "fails");
    s.reported = scored;
    s.reported.induce = -0.1;
    VERDICT(conclude_site, "fails");
    s.reported = scored;
    s.sites = NULL;
    VERDICT(conclude_site, "can't be told");
    s.reported.kl = 0.2;
    VERDICT(conclude_site, "fails");

    /* Random vectors: all three count. */
    s.findings.most = about(90, 5, 100);
    for (int i = 0; i < CONTROLS; i++)
        s.findings.control[i] = about(0.05, 0.05, 100);
    VERDICT(conclude_direction, "holds");
    s.findings.control[2] = about(0.3, 0.05, 100);
    VERDICT(conclude_direction, "holds in part");
    s.findings.control[2] = about(0.9, 0.05, 100);
    VERDICT(conclude_direction, "fails");
    s.findings.control[2] = about(0.19, 0.5, 100);
    VERDICT(conclude_direction, "can't be told");

    /* Patterns: on fresh prompts Qwen lost 0.28 [0.21, 0.34] of what there is: in part. */
    s.findings.share[0] = about(0.1, 0.1, 100);
    s.findings.values_over_patterns = about(0, 5, 100);
    VERDICT(conclude_patterns, "holds");
    s.findings.share[0] = (estimate){0.28, 0.21, 0.34, 1, 160};
    s.findings.values_over_patterns = about(20, 5, 160);
    VERDICT(conclude_patterns, "holds in part");
    s.findings.values_over_patterns = about(4, 5, 160);
    VERDICT(conclude_patterns, "fails");
    s.findings.share[0] = about(0.19, 0.05, 160);
    VERDICT(conclude_patterns, "can't be told");
    s.findings.share[0] = about(0.1, 0.05, 160);
    s.findings.most = about(3, 4, 100);
    VERDICT(conclude_patterns, "can't be told"); /* there is too little to lose */
    s.findings.values_over_patterns = about(20, 5, 160);
    VERDICT(conclude_patterns, "can't be told");
    s.findings.most = about(90, 5, 100);

    const estimate values[] = {about(0.6, 0.1, 100), about(0.4, 0.05, 100), about(0, 3, 100),
                               about(0.55, 0.1, 100)};
    FALLING(conclude_values, &s.findings.share[1], &s.findings.values_over_patterns, values);

    s.findings.loss[1] = about(80, 5, 100);
    s.findings.image_of_values = about(0.7, 0.1, 100);
    VERDICT(conclude_image, "holds");
    s.findings.image_of_values = about(0.36, 0.1, 100);
    VERDICT(conclude_image, "holds in part");
    s.findings.image_of_values = about(0.2, 0.1, 100);
    VERDICT(conclude_image, "fails");
    s.findings.image_of_values = about(0.45, 0.3, 100);
    VERDICT(conclude_image, "can't be told");
    s.findings.loss[1] = about(0, 3, 100);
    s.findings.image_of_values = unmeasured;
    VERDICT(conclude_image, "can't be told");

    const estimate continuous[] = {about(0.9, 0.1, 10), about(0.7, 0.05, 10), about(0.1, 0.2, 10),
                                   about(0.85, 0.1, 10)};
    s.findings.F[1] = about(0.3, 0.1, 10);
    s.findings.F_difference = about(0.6, 0.2, 10);
    FALLING(conclude_continuous, &s.findings.F[0], &s.findings.F_difference, continuous);

    for (int i = NTP; i <= PO; i++)
        for (int k = 0; k < 2; k++)
            s.findings.apart[i][k] = about(2, 5, 100);
    VERDICT(conclude_methods, "holds");
    s.findings.apart[PO][1] = about(-18, 8, 100);
    VERDICT(conclude_methods, "holds in part");
    s.findings.apart[PO][1] = about(-50, 8, 100);
    VERDICT(conclude_methods, "fails");
    s.findings.apart[PO][1] = about(-9, 40, 100);
    VERDICT(conclude_methods, "can't be told");

    for (int j = 0; j < 3; j++) {
        s.findings.judged[j].tenth = about(0.95, 0.05, 20);
        s.findings.judged[j].quarter = about(0.99, 0.05, 20);
    }
    VERDICT(conclude_circuits, "holds");
    s.findings.judged[PO].tenth = about(0.7, 0.05, 20);
    VERDICT(conclude_circuits, "holds in part"); /* each method's circuit counts */
    s.findings.judged[NTP].quarter = about(0.8, 0.02, 20);
    VERDICT(conclude_circuits, "fails");
    s.findings.judged[PO].tenth = about(0.86, 0.05, 20);
    VERDICT(conclude_circuits, "can't be told");
    s.findings.judged[PO].tenth = s.findings.judged[PO].smallest = unmeasured;
    VERDICT(conclude_circuits, "can't be told");

    for (int j = 0; j < 3; j++) {
        s.findings.judged[j].random = about(0.03, 0.02, DRAWS);
        s.findings.judged[j].largest = 0.08;
    }
    VERDICT(conclude_random, "holds");
    s.findings.judged[DIM].largest = 0.4;
    VERDICT(conclude_random, "holds in part");
    CHECK_THAT(numbers_amiss(&out, AT(out.entries, entry, n_entries(&out) - 1)) == 1,
               "the largest draw keeps it from holding, and is no number of the finding's");
    s.findings.judged[DIM].random = about(0.2, 0.05, DRAWS);
    VERDICT(conclude_random, "fails");
    s.findings.judged[DIM].random = about(0.12, 0.05, DRAWS);
    VERDICT(conclude_random, "can't be told");
    s.findings.judged[DIM].random = unmeasured;
    s.findings.judged[DIM].least = s.findings.judged[DIM].largest = NAN;
    VERDICT(conclude_random, "can't be told");

    s.findings.overlap = about(0.8, 0.05, 20);
    for (int i = 0; i < METHODS; i++)
        for (int j = 0; j < METHODS; j++)
            s.findings.interchange[i][j] = about(0.85, 0.05, 20);
    VERDICT(conclude_interchange, "holds");
    s.findings.interchange[0][0] = about(0.1, 0.05, 20); /* its own circuit is not asked about */
    VERDICT(conclude_interchange, "holds");
    s.findings.interchange[0][2] = about(0.6, 0.05, 20);
    VERDICT(conclude_interchange, "holds in part");
    s.findings.interchange[0][2] = about(0.3, 0.05, 20);
    VERDICT(conclude_interchange, "fails");
    s.findings.interchange[0][2] = about(0.7, 0.3, 20);
    VERDICT(conclude_interchange, "can't be told");
    s.findings.interchange[0][2] = about(0.85, 0.05, 20);
    s.findings.overlap = about(0.8, 0.1, 20);
    VERDICT(conclude_interchange, "holds in part");
    s.findings.overlap = about(0.7, 0.2, 20);
    VERDICT(conclude_interchange, "can't be told");
    s.findings.overlap = about(0.2, 0.05, 20);
    VERDICT(conclude_interchange, "fails");

    VERDICT(conclude_sparsity, "can't be told"); /* nothing was tried */
    s.findings.sparse[0].zeroed = 0.7;
    s.findings.sparse[0].loss = about(2, 3, 60);
    s.findings.sparse[1].zeroed = 0.9;
    s.findings.sparse[1].loss = about(5, 4, 60);
    VERDICT(conclude_sparsity, "holds");
    s.findings.sparse[1].loss = about(40, 10, 60);
    VERDICT(conclude_sparsity, "holds in part");
    s.findings.sparse[0].loss = about(30, 10, 60);
    VERDICT(conclude_sparsity, "fails");
    s.findings.sparse[1].loss = about(8, 10, 60);
    VERDICT(conclude_sparsity, "can't be told");

    s.findings.significant = 10;
    s.findings.tested = 11;
    VERDICT(conclude_dimensions, "holds");
    s.findings.significant = 6;
    VERDICT(conclude_dimensions, "holds in part");
    s.findings.significant = 1;
    VERDICT(conclude_dimensions, "fails");
    s.findings.significant = s.findings.tested = 0;
    conclude_dimensions(&s);
    const entry *x = AT(out.entries, entry, n_entries(&out) - 1);
    CHECK_THAT(!strcmp(x->verdict, "can't be told") && strstr(x->text, "0 of 0"), "%s", x->text);

    /* How many prompts: the interval shrinks with the root of their number. */
    reply q = at_least(about(0.55, 0.1, 100), 0.5);
    CHECK_THAT(q.answer == OPEN && fabs(q.needed - 400) <= 1, "%g prompts", q.needed);
    q = at_most(about(0.15, 0.1, 50), 0.2);
    CHECK_THAT(q.answer == OPEN && fabs(q.needed - 200) <= 1, "%g prompts", q.needed);
    CHECK_THAT(isinf(at_least(about(0.5, 0.1, 50), 0.5).needed), "on the bound none is enough");
    free_report(&out);
}

/* ---------------------------------------------------------------- who judges what */

/* Three vectors that flip different prompts: what judges a circuit chose none, of any method. */
static void test_judges(void) {
    enum { PROMPTS = 40, CHOOSE = 5, JUDGE = 6 };

    steer_model m = {.config = {.d = 4, .layers = 3, .heads = 1, .kv_heads = 1}};
    report out = {0};
    steer_error e = {0};
    experiment s = {.m = &m,
                    .out = &out,
                    .e = &e,
                    .methods = 3,
                    .max_new = 1,
                    .n_test = PROMPTS,
                    .n_patch = CHOOSE,
                    .n_judge = JUDGE};
    static int tokens[2][PROMPTS], lengths[PROMPTS], answers[PROMPTS], *rows[2][PROMPTS];
    static unsigned char plain[2][PROMPTS], steered[METHODS][2][PROMPTS];
    for (int k = 0; k < 2; k++) {
        for (int i = 0; i < PROMPTS; i++) {
            tokens[k][i] = 100 * k + i;
            rows[k][i] = &tokens[k][i];
            lengths[i] = 1;
            plain[k][i] = k == HARMFUL;
            for (int j = 0; j < METHODS; j++) /* method j steers where i mod (j + 2) is not 0 */
                steered[j][k][i] = i % (j + 2) ? !plain[k][i] : plain[k][i];
        }
        s.test[k] = (steer_prompts){.n = PROMPTS, .tokens = rows[k], .lengths = lengths};
        s.plain[k] = (condition){.prompts = &s.test[k],
                                 .n = PROMPTS,
                                 .tokens = answers,
                                 .lengths = lengths,
                                 .refuses = plain[k]};
        for (int j = 0; j < METHODS; j++) {
            s.vectors[j].steered[k] = s.plain[k];
            s.vectors[j].steered[k].refuses = steered[j][k];
        }
    }
    for (int j = 0; j < METHODS; j++)
        CHECK_THAT(!collect(&s, &s.vectors[j], 0), "%s", e.text);
    for (int j = 0; j < METHODS; j++)
        CHECK_THAT(!collect(&s, &s.vectors[j], 1), "%s", e.text);
    for (int j = 0; j < METHODS; j++) {
        const examples *judging = &s.vectors[j].judging, *choosing = &s.vectors[j].choosing;
        CHECK_THAT(choosing->n == 4 * CHOOSE && choosing->count[0] == CHOOSE, "%d choose",
                   choosing->n);
        CHECK_THAT(judging->n == 2 * JUDGE && judging->count[1] == JUDGE, "%d judge", judging->n);
        for (int i = 0; i < judging->n; i++) {
            const example *x = &judging->list[i];
            CHECK_THAT(x->steered_text && x->n == 2 && (x->coeff > 0) == (*x->tokens >= 100),
                       "a judge that is none");
            for (int other = 0; other < METHODS; other++)
                for (int c = 0; c < s.vectors[other].choosing.n; c++)
                    CHECK_THAT(*s.vectors[other].choosing.list[c].tokens != *x->tokens,
                               "prompt %d chose for %s", *x->tokens, method_names[other]);
        }
    }
    memset(s.test, 0, sizeof s.test);
    clear_experiment(&s);
}

/* A random vector as long as the one that steers does not steer; ten draws of random circuits are
 * ten circuits; the report says what the rule says of the site. */
static void test_controls(void) {
    static const char path[] = "weights/tiny-gemma.bin";
    steer_error e = {0};
    report out = {0};
    options o;
    experiment s = {
        .m = open_or_fail(path), .path = path, .out = &out, .e = &e, .stages = EVERYTHING};
    steer_model *m = (steer_model *)(uintptr_t)s.m;
    if (!m)
        return;
    CHECK_THAT(!understand("reproduce M --quick --train 48 --limit 12 --map 0 --max-new 16 "
                           "--patch 1 --exact 0 --site 1,-4 --coeff 1 --no-scores",
                           &o, &e),
               "%s", e.text);
    CHECK_THAT(!prepare_paper(&s, &o) && !command_paper(&s, &o), "%s", e.text);
    CHECK_THAT(s.n_patch == 1 && s.n_judge == 1, "--patch 1, and %d judge", s.n_judge);
    CHECK_THAT(s.findings.most.value > 80, "the vector moves %g points", s.findings.most.value);
    for (int i = 0; i < CONTROLS; i++) {
        const steer_edit *add = s.control[i][HARMLESS].edits.edits;
        double ratio = norm_of(add->v, s.v.d) / norm_of(s.v.v, s.v.d);
        CHECK_THAT(fabs(ratio - 1) < 1e-5 && add->layer == s.v.layer && add->kind == STEER_ADD &&
                       s.control[i][HARMLESS].edits.n == 1 && add->coeff == s.v.coeff,
                   "control %d: length %g", i, ratio);
        /* Of s a random direction holds a share of N(0, 1 / d): 4 deviations are met by one in
         * 16,000. So it is surely not s, and what it moves is surely less than half of what s
         * moves, or the report would say that it is not the direction that steers. */
        double along = dot(add->v, s.v.v, s.v.d) / pow(norm_of(s.v.v, s.v.d), 2);
        estimate share = s.findings.control[i];
        CHECK_THAT(fabs(along) < 4 / sqrt(s.v.d), "control %d: %g of s is in it", i, along);
        CHECK_THAT(at_most(share, 0.5).answer == YES,
                   "control %d moves %g points, a share of %g [%g, %g]", i, s.findings.moved[i],
                   share.value, share.low, share.high);
        for (int j = 0; j < i; j++)
            CHECK_THAT(memcmp(add->v, s.control[j][HARMLESS].edits.edits[0].v,
                              sizeof(float) * (size_t)s.v.d),
                       "controls %d and %d are one", i, j);
    }
    int n = 60;
    for (int i = 0; i < DRAWS; i++) {
        int kept = 0;
        cut_circuit(&s, i, &s.vectors[DIM], KINDS + i, n);
        for (int c = 0; c < (int)graph_size(&s); c++)
            kept += has_edge(&s.t->graph, c) && !cut_at(&s, i)[c];
        CHECK_THAT(kept >= n && kept < 2 * n, "draw %d keeps %d edges", i, kept);
        for (int j = 0; j < i; j++)
            CHECK_THAT(memcmp(cut_at(&s, i), cut_at(&s, j), graph_size(&s)), "draws %d, %d", i, j);
    }
    int site = 0, judged = 0, tables = 0;
    for (size_t i = 0; i < n_entries(&out); i++) {
        const entry *x = AT(out.entries, entry, i);
        site += x->kind == IS_NOTE && strstr(x->name, "the reported site, block 1, position -4") &&
                strstr(x->name, "passes the rule: ");
        judged += x->kind == IS_FINDING && strstr(x->text, "did not choose them");
        tables += x->kind == IS_TABLE && !strcmp(x->name, "judged");
        tables += x->kind == IS_TABLE && !strcmp(x->name, "retained");
    }
    CHECK_THAT(site == 1 && judged == 1 && tables == 2, "%d, %d, %d", site, judged, tables);
    CHECK_THAT(s.vectors[DIM].judging.n > 0 && s.findings.judged[DIM].smallest.n > 0,
               "nobody judges");
    clear_experiment(&s);
    free_report(&out);
    steer_close(m);
}
