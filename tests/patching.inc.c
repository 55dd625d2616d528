/* Steering by the paper: vectors and patching against PyTorch, circuits, value vectors, sparse and
 * trained vectors. A circuit is held against every path, a probability against every subset. */

/* ---------------------------------------------------------------- against PyTorch */

typedef struct { /* one case of patch.txt */
    char name[128];
    steer_model *m;
    int own, tokens[512], n, prompt, layer, flag, metric, steps, ran;
    float coeff, *vector;
    tracer *t;
    example x;
    double *scores, *node, *edge;
    unsigned char *keep;
} patch_case;

/* Run the case when its first result is read. */
static int run_case(patch_case *p) {
    steer_error e = {0};
    if (p->ran)
        return p->ran > 0;
    p->ran = -1;
    steer_status s = new_tracer(&p->t, p->m, p->layer, p->n, p->n - p->prompt + 1, 5, &e);
    p->x = (example){p->tokens, p->n, p->prompt, p->coeff, p->flag};
    if (!s) {
        size_t graph = (size_t)p->t->graph.slots * (size_t)p->t->graph.nodes;
        p->scores = calloc(scores_width(p->t), sizeof(double));
        p->node = calloc((size_t)p->t->graph.nodes, sizeof(double));
        p->edge = calloc(graph, sizeof(double));
        p->keep = calloc(graph, 1);
        s = attribute(p->t, &p->x, p->vector, p->metric, p->steps, p->scores, &e);
    }
    CHECK_THAT(!s, "%s: %s", p->name, e.text);
    if (!s)
        p->ran = 1;
    return !s;
}

/* The circuit's logits at one position, all streams of cut edges in one batch. */
static void circuit_logits(patch_case *p, int pos, const double *expected, int n, fit *f) {
    changes base = {.layer = p->layer, .start = p->t->tape[0].resid};
    changes circuit = {.layer = p->layer,
                       .start = p->t->tape[0].resid,
                       .add = p->vector,
                       .coeff = p->coeff,
                       .cut = p->keep};
    const steer_plan *plans[2] = {plan_of(&base), plan_of(&circuit)};
    steer_error e = {0};
    float final[512], *logits = malloc(sizeof(float) * (size_t)n);
    CHECK_THAT(!run_example(p->t, &p->x, plans, 2, NULL, &e), "%s: %s", p->name, e.text);
    final_norm(p->t->c, p->n + pos, final);
    matmul(logits, final, &p->m->unembed, 1);
    for (int i = 0; i < n; i++)
        hold(f, (double)logits[i], expected[i]);
    free(logits);
}

/* Gradients at every site, IG scores of nodes and edges in both forms, exact patching, circuits:
 * tools/golden_patch.py in float64, brute force with hooks. Errors relative to a line's largest
 * number (scores: a case's), 1e-4; edge scores 1e-3 above the median, Pearson 0.99999. */
static void test_golden_patch(void) {
    golden_lines file = open_golden("tests/golden/patch.txt");
    int cases = 0, d, nodes, n_lines = 0;
    double *v = malloc(sizeof *v * 40000), worst_gradient = 0, worst_score = 0, worst_exact = 0,
           worst_circuit = 0, gap10 = 0;
    fit score[2] = {{0, 0}, {0, 0}}, exact = {0, 0}, circuit = {0, 0};
    patch_case p = {0};
    while (golden_line(&file)) {
        const char *word = file.word, *rest = file.rest;
        int n = parse_doubles(rest, v, 40000), i = n ? (int)v[0] : 0;
        n_lines++;
        if (!strcmp(word, "case")) {
            memset(&p, 0, sizeof p);
            cases++;
            memset(score, 0, sizeof score);
            memset(&exact, 0, sizeof exact);
            memset(&circuit, 0, sizeof circuit);
            snprintf(p.name, sizeof p.name, "%s", rest + 1);
        } else if (!strcmp(word, "random")) {
            float numbers[24] = {0};
            parse_floats(rest, numbers, 24);
            p.m = random_model((int)numbers[0], (double)numbers[1], random_config(numbers), F32);
            p.own = 1;
        } else if (!strcmp(word, "model"))
            p.m = open_or_fail(rest + 1);
        else if (!strcmp(word, "layer"))
            p.layer = i;
        else if (!strcmp(word, "coeff"))
            p.coeff = (float)v[0];
        else if (!strcmp(word, "tokens"))
            p.n = parse_ints(rest, p.tokens, 512);
        else if (!strcmp(word, "prompt"))
            p.prompt = i;
        else if (!strcmp(word, "flag"))
            p.flag = i;
        else if (!strcmp(word, "steps"))
            p.steps = i;
        else if (!strcmp(word, "metric")) {
            p.metric = !strcmp(rest, " logit") ? STEER_LOGIT : STEER_KL;
            if (!strcmp(rest, " dirkl"))
                p.metric = STEER_DIR_KL;
        } else if (!strcmp(word, "vector")) {
            p.vector = malloc(sizeof(float) * (size_t)n);
            for (int k = 0; k < n; k++)
                p.vector[k] = (float)v[k];
        }
        if (!p.steps || !strcmp(word, "steps") || !run_case(&p))
            continue; /* the head of a case */
        d = p.m->config.d;
        nodes = p.t->graph.nodes;
        if (!strcmp(word, "poi")) {
            CHECK_THAT(n == (int)p.scores[SCORE_POSITIONS], "%s: %d positions of interest", p.name,
                       (int)p.scores[SCORE_POSITIONS]);
            for (int k = 0; k < n && k < (int)p.scores[SCORE_POSITIONS]; k++)
                CHECK_THAT(p.t->poi[k] == (int)v[k] - p.prompt + 1, "%s: position %d", p.name, k);
        } else if (!strcmp(word, "total")) {
            CHECK_THAT(fabs(p.scores[SCORE_TOTAL] - v[0]) <= 1e-4 * fmax(1, fabs(v[0])),
                       "%s: total effect %.7g, not %.7g", p.name, p.scores[SCORE_TOTAL], v[0]);
            if (p.steps == 10)
                gap10 = fmax(gap10, fabs(p.scores[SCORE_ESTIMATE] / v[0] - 1));
        } else if (!strcmp(word, "source") || !strcmp(word, "dest")) {
            int source = !p.flag, run = *word == 's' ? source : !source;
            double got =
                metric_of(p.t, p.metric, source, p.t->final[run], (int)p.scores[SCORE_POSITIONS]);
            CHECK_THAT(fabs(got - v[0]) <= 1e-4 * fabs(v[0]), "%s: m(%s) %.7g, not %.7g", p.name,
                       word, got, v[0]); /* where it is 0, a run from itself, it is so exactly */
        } else if (!strcmp(word, "gout") || !strcmp(word, "gin")) {
            fit g = {0, 0};
            const float *mine = p.t->grad.out + i * p.n * d;
            if (word[1] == 'i') {
                slot_place at = place_of_slot(&p.t->graph, i);
                slot_gradients(p.t, at.b, 0, p.n);
                mine = p.t->slot_G + at.i * p.n * d;
            }
            CHECK_THAT(n == 1 + p.n * d, "%s: %s %d has %d numbers", p.name, word, i, n - 1);
            for (int k = 1; k < n; k++)
                hold(&g, (double)mine[k - 1], v[k]);
            double off = g.error / fmax(g.largest, 1e-3);
            worst_gradient = fmax(worst_gradient, off);
            CHECK_THAT(off <= 1e-4, "%s: %s %d: relative error %.3g", p.name, word, i, off);
        } else if (!strcmp(word, "node") || !strcmp(word, "dvector")) {
            const double *mine =
                *word == 'n' ? p.scores + SCORE_NODES : vector_scores(p.t, p.scores);
            fit g = {0, 0};
            CHECK_THAT(n == (*word == 'n' ? nodes : d), "%s: %s of %d", p.name, word, n);
            for (int k = 0; k < n; k++)
                hold(&g, mine[k], v[k]);
            worst_score = fmax(worst_score, g.error / g.largest);
            CHECK_THAT(g.error <= 1e-4 * g.largest, "%s: %s: error %.3g", p.name, word,
                       g.error / g.largest);
        } else if (!strcmp(word, "official") || !strcmp(word, "aware")) {
            CHECK_THAT(n == 1 + nodes, "%s: %s %d has %d numbers", p.name, word, i, n - 1);
            for (int u = 0; u < nodes; u++)
                hold(&score[*word == 'a'], edge_scores(p.t, p.scores, *word == 'a')[i * nodes + u],
                     v[1 + u]);
        } else if (!strcmp(word, "exactnode")) {
            steer_error e = {0};
            CHECK_THAT(!steer_patch_exactly(p.t, &p.x, p.vector, p.node, p.edge, &e), "%s: %s",
                       p.name, e.text);
            CHECK_THAT(n == nodes, "%s: %d exact nodes", p.name, n);
            for (int u = 0; u < nodes; u++)
                hold(&exact, p.node[u], v[u]);
        } else if (!strcmp(word, "exact")) {
            for (int u = 0; u < nodes; u++)
                hold(&exact, p.edge[i * nodes + u], v[1 + u]);
        } else if (!strcmp(word, "keep")) { /* cut: causal edges that are not kept */
            const char *bits = rest + 1 + strcspn(rest + 1, " ") + 1;
            CHECK_THAT((int)strlen(bits) == nodes, "%s: keep %d: %s", p.name, i, bits);
            for (int u = 0; u < nodes; u++)
                p.keep[i * nodes + u] = u < senders(&p.t->graph, i) && bits[u] == '0';
        } else if (!strcmp(word, "circuit"))
            circuit_logits(&p, i, v + 1, n - 1, &circuit);
        else if (!strcmp(word, "faith")) {
            changes plan = {.layer = p.layer, .cut = p.keep};
            steer_error e = {0};
            double F = 0;
            CHECK_THAT(!steer_faithfulness(p.t, &p.x, p.vector, plan_of(&plan), 1, &F, NULL, &e),
                       "%s: %s", p.name, e.text);
            CHECK_THAT(fabs(F - v[0]) <= 1e-4 * fmax(1, fabs(v[0])),
                       "%s: faithfulness %.7g not %.7g", p.name, F, v[0]);
        } else if (!strcmp(word, "end")) {
            for (int k = 0; k < 2; k++) {
                double off = score[k].error / fmax(score[k].largest, 1e-9);
                worst_score = fmax(worst_score, off);
                CHECK_THAT(off <= 1e-4, "%s: edge scores %d: relative error %.3g", p.name, k, off);
            }
            worst_exact = fmax(worst_exact, exact.error);
            worst_circuit = fmax(worst_circuit, circuit.error);
            CHECK_THAT(exact.error <= 1e-4, "%s: exact patching: error %.3g", p.name, exact.error);
            CHECK_THAT(circuit.error <= 1e-4, "%s: circuit logits: error %.3g", p.name,
                       circuit.error);
            free_tracer(&p.t);
            free(p.scores);
            free(p.node);
            free(p.edge);
            free(p.keep);
            free(p.vector);
            if (p.own)
                free_random_model(p.m);
            else
                steer_close(p.m);
        }
    }
    free(v);
    printf("  patch.txt: %d cases; largest errors: gradients %.2g, scores %.2g (relative), exact "
           "patching %.2g, circuit logits %.2g; completeness gap at 10 steps %.2g\n",
           cases, worst_gradient, worst_score, worst_exact, worst_circuit, gap10);
    CHECK_THAT(cases > 0 && n_lines > 100, "no cases");
}

/* Losses and gradients of NTP and PO, AdamW's steps, steering value vectors and their logit lens,
 * sparse vectors: tools/golden_patch.py in float64. Relative errors of whole lines. */
static double relative(const double *expected, int n, const float *f, const double *g) {
    double off = 0, all = 0;
    for (int i = 0; i < n; i++) {
        double x = f ? (double)f[i] : g[i];
        off += (x - expected[i]) * (x - expected[i]);
        all += expected[i] * expected[i];
    }
    return sqrt(off / fmax(all, 1e-30));
}

static void test_golden_train(void) {
    enum { MAX = 1024 };

    golden_lines file = open_golden("tests/golden/train.txt");
    char name[128] = "";
    double v[MAX], grad[3 * MAX], s[MAX], effect[MAX], adam[2 * MAX], lr0 = 0;
    float vector[MAX], now[MAX], sum[MAX], logits[8], tau = 0;
    int ids[8], layer = 0, d = 0, dropped = 0, lines = 0, wrong = 0;
    double factor = 0, worst_loss = 0, worst_gradient = 0, worst_adam = 0, worst_svv = 0;
    steer_pair p = {0};
    steer_training how = standard_training;
    steer_model *m = NULL;
    tracer *t = NULL;
    steer_error e = {0};
    while (golden_line(&file)) {
        const char *word = file.word, *rest = file.rest;
        int n = parse_doubles(rest, v, MAX);
        lines++;
        if (!strcmp(word, "case"))
            snprintf(name, sizeof name, "%s", rest + 1);
        else if (!strcmp(word, "random")) {
            float numbers[24] = {0};
            parse_floats(rest, numbers, 24);
            free_random_model(m);
            m = random_model((int)numbers[0], (double)numbers[1], random_config(numbers), F32);
            d = m->config.d;
            memset(sum, 0, sizeof sum);
        } else if (!strcmp(word, "layer"))
            layer = (int)v[0];
        else if (!strcmp(word, "sign"))
            p.sign = (float)v[0];
        else if (!strcmp(word, "factor"))
            factor = v[0];
        else if (!strcmp(word, "phi"))
            how.phi = v[0];
        else if (!strcmp(word, "window"))
            how.window = (int)v[0];
        else if (!strcmp(word, "prompt"))
            p.n_prompt = (int)v[0];
        else if (!strcmp(word, "win") || !strcmp(word, "lose")) {
            int k = *word == 'l';
            int *tokens = malloc(sizeof(int) * 64);
            p.tokens[k] = tokens;
            p.n[k] = parse_ints(rest, tokens, 64);
        } else if (!strcmp(word, "vector"))
            for (int i = 0; i < n; i++)
                vector[i] = (float)v[i];
        else if (!strcmp(word, "ntp") || !strcmp(word, "po")) {
            double loss = 0, match;
            how.objective = *word == 'p' ? STEER_PO : STEER_NTP;
            if (how.objective == STEER_NTP) {
                CHECK_THAT(!new_tracer(&t, m, layer, 64, 64, 1, &e), "%s", e.text);
                for (int k = 0; k < 2; k++)
                    p.start[k] = malloc(sizeof(float) * 64 * (size_t)d);
                CHECK_THAT(!steer_pair_prepare(t, &p, &how, &e), "%s", e.text);
            }
            memset(grad, 0, sizeof grad);
            CHECK_THAT(!pair_loss(t, &p, &how, vector, factor, &loss, &match, grad, &e), "%s",
                       e.text);
            worst_loss = fmax(worst_loss, fabs(loss / v[0] - 1));
            CHECK_THAT(fabs(loss / v[0] - 1) <= 1e-5, "%s: %s loss %.8g, not %.8g", name, word,
                       loss, v[0]);
        } else if (!strcmp(word, "ref"))
            CHECK_THAT(relative(v, 2, NULL, p.reference) <= 1e-5, "%s: references", name);
        else if (!strcmp(word, "ntpgrad") || !strcmp(word, "pograd")) {
            double off = relative(v, n, NULL, grad);
            worst_gradient = fmax(worst_gradient, off);
            CHECK_THAT(n == d && off <= 1e-4, "%s: %s: relative error %.3g", name, word, off);
        } else if (!strcmp(word, "lr")) {
            lr0 = v[0];
            memset(adam, 0, sizeof adam);
        } else if (!strcmp(word, "start"))
            for (int i = 0; i < n; i++)
                now[i] = (float)v[i];
        else if (!strcmp(word, "grad"))
            memcpy(grad, v + 1, sizeof *v * (size_t)(n - 1));
        else if (!strcmp(word, "after")) {
            adam_step(now, grad, adam, adam + MAX, n - 1, (int)v[0] + 1, lr0 * (1 - v[0] / 10));
            double off = relative(v + 1, n - 1, now, NULL);
            worst_adam = fmax(worst_adam, off);
            CHECK_THAT(off <= 1e-5, "%s: step %d: relative error %.3g", name, (int)v[0], off);
        } else if (!strcmp(word, "svv")) {
            double norm = norm_of(vector, d); /* the display is of v / |v| */
            for (int i = 0; i < d; i++)
                vector[i] = (float)(vector[i] / norm);
            CHECK_THAT(!steer_value_vector(m, vector, (int)v[0], (int)v[1], now, &e), "%s", e.text);
            for (int i = 0; i < d; i++)
                sum[i] += now[i];
            double off = relative(v + 2, n - 2, now, NULL);
            worst_svv = fmax(worst_svv, off);
            CHECK_THAT(off <= 1e-5, "%s: head %g.%g: relative error %.3g", name, v[0], v[1], off);
        } else if (!strcmp(word, "svvsum"))
            CHECK_THAT(relative(v, n, sum, NULL) <= 1e-5, "%s: the sum", name);
        else if (!strcmp(word, "lens")) {
            if (v[0] >= 0)
                CHECK_THAT(!steer_value_vector(m, vector, (int)v[0], (int)v[1], now, &e), "%s",
                           e.text);
            int skip = n - 8;
            CHECK_THAT(!steer_logit_lens(m, v[0] < 0 ? sum : now, 8, ids, logits, &e), "%s",
                       e.text);
            for (int i = 0; i < 8; i++)
                wrong += ids[i] != (int)v[skip + i];
        } else if (!strcmp(word, "lensv")) {
            double off = relative(v + n - 8, 8, logits, NULL);
            CHECK_THAT(off <= 1e-4, "%s: lens: relative error %.3g", name, off);
        } else if (!strcmp(word, "s")) {
            memcpy(s, v, sizeof s);
            d = n;
        } else if (!strcmp(word, "e"))
            memcpy(effect, v, sizeof effect);
        else if (!strcmp(word, "tau")) {
            tau = (float)v[0];
            dropped = (int)v[1];
        } else if (strstr(word, "mask") || !strcmp(word, "renorm")) {
            steer_sparsity rule = *word == 'i' ? STEER_BY_EFFECT : STEER_BY_GRADIENT;
            if (*word == 'm')
                rule = STEER_BY_MAGNITUDE;
            double tried[] = {0, 0.1, 0.3, 0.5, 1, 1.5, 2, 2.5}, exactly = tau;
            for (int i = 0; i < 8; i++)
                if (fabs(tried[i] - (double)tau) < 1e-6)
                    exactly = tried[i];
            for (int i = 0; i < d; i++)
                vector[i] = (float)s[i];
            int kept = steer_sparsify(vector, effect, d, exactly, rule, 1, *word == 'r', now, &e);
            CHECK_THAT(kept == d - dropped, "tau %g: %d of %d stay", exactly, kept, d);
            for (int i = 0; i < d && *word != 'r'; i++)
                if (s[i] != 0)
                    wrong += (now[i] != 0) != (rest[1 + i] == '1');
            if (*word == 'r')
                CHECK_THAT(relative(v, n, now, NULL) <= 1e-5, "tau %g: norm", exactly);
        } else if (!strcmp(word, "end")) {
            for (int k = 0; k < 2; k++) {
                free((void *)(uintptr_t)p.tokens[k]);
                free(p.start[k]);
            }
            memset(&p, 0, sizeof p);
            free_tracer(&t);
        }
    }
    free_random_model(m);
    printf("  train.txt: %d lines; relative errors: losses %.2g, gradients %.2g, AdamW %.2g, value "
           "vectors %.2g\n",
           lines, worst_loss, worst_gradient, worst_adam, worst_svv);
    CHECK_THAT(lines > 100 && !wrong, "%d wrong tokens or dimensions", wrong);
}

/* PyTorch's difference-in-means vectors in float64, and what they do to refusal scores. */
static void test_golden_dim(void) {
    static const char *const files[] = {"weights/harmful-train.txt", "weights/harmless-train.txt",
                                        "weights/harmful-val.txt", "weights/harmless-val.txt"};
    golden_lines file = open_golden("tests/golden/dim.txt");
    float numbers[2048];
    steer_sums sums[2] = {{0}};
    double score[64], vector_error = 0, score_error = 0, kl_error = 0;
    steer_model *m = NULL;
    steer_context *c = NULL;
    steer_prompts p[4] = {0};
    steer_vector v = {0};
    steer_error e = {0};
    float *base = NULL;
    experiment st = {.e = &e};
    int cases = 0;
    while (golden_line(&file)) {
        const char *word = file.word, *rest = file.rest;
        char path[256] = "";
        int layer = 0, pos = 0, n = 0;
        if (!strcmp(word, "model")) {
            sscanf(rest, "%255s", path);
            m = open_or_fail(path);
            if (!m)
                break;
        } else if (!strcmp(word, "prompts")) {
            n = atoi(rest);
            for (int i = 0; i < 4; i++)
                CHECK_THAT(!steer_prompts_load(&p[i], m, files[i], i < 2 ? n : 12, &e), "%s",
                           e.text);
            steer_limits l = {.streams = 16, .positions = 256, .rows = 256};
            c = steer_context_new(m, &l, &e);
            CHECK_THAT(c, "%s", e.text);
            st.m = m;
            st.c = c;
            for (int k = 0; k < 2; k++) {
                size_t room = 3 * (size_t)m->eoi * m->config.layers * m->config.d;
                sums[k] = (steer_sums){.sum = zeros(room, sizeof(double))};
                CHECK_THAT(!steer_means(c, &p[k], NULL, 0, &sums[k], &e) && sums[k].count == n,
                           "means over %d prompts of %d: %s", sums[k].count, n, e.text);
            }
        } else if (!strcmp(word, "base")) {
            base = zeros(12 * (size_t)m->config.vocab, sizeof *base);
            parse_floats(rest, numbers, 2);
            for (int k = 0; k < 2; k++) {
                float *keep = k ? base : NULL;
                CHECK_THAT(!score_prompts(&st, &p[2 + k], NULL, score, keep, NULL), "%s", e.text);
                score_error = fmax(score_error, fabs(mean_of(score, 12) - numbers[k]));
            }
        } else if (!strcmp(word, "dim")) {
            n = parse_floats(rest, numbers, 2048) - 2;
            layer = (int)numbers[0];
            pos = (int)numbers[1];
            CHECK_THAT(n == m->config.d, "a vector of %d numbers", n);
            steer_vector_free(&v);
            CHECK_THAT(!steer_dim(&v, m, &sums[0], &sums[1], layer, pos, 1, &e), "%s", e.text);
            double off = 0, norm = 0;
            for (int i = 0; i < n; i++) {
                off += pow(v.v[i] - (double)numbers[i + 2], 2);
                norm += pow((double)numbers[i + 2], 2);
            }
            vector_error = fmax(vector_error, sqrt(off / norm));
        } else if (!strcmp(word, "score")) {
            CHECK_THAT(parse_floats(rest, numbers, 8) == 5, "a line of other than 5 numbers");
            CHECK_THAT(v.layer == (int)numbers[0] && v.pos == (int)numbers[1],
                       "scores of another vector");
            for (int k = 0; k < 2; k++) {
                changes plan = {.add = v.v, .coeff = k ? 1.0f : -1.0f, .layer = v.layer};
                CHECK_THAT(!score_prompts(&st, &p[2 + k], plan_of(&plan), score, NULL, NULL), "%s",
                           e.text);
                score_error = fmax(score_error, fabs(mean_of(score, 12) - numbers[2 + k]));
            }
            changes plan = {.ablate = v.v};
            CHECK_THAT(!score_prompts(&st, &p[3], plan_of(&plan), NULL, base, score), "%s", e.text);
            kl_error = fmax(kl_error, fabs(mean_of(score, 12) - numbers[4]) / (1e-3 + numbers[4]));
            cases++;
        } else if (!strcmp(word, "end")) {
            for (int i = 0; i < 4; i++)
                steer_prompts_free(&p[i]);
            clear_experiment(&st);
            steer_vector_free(&v);
            steer_close(m);
            st.e = &e;
            free(sums[0].sum);
            free(sums[1].sum);
            free(base);
        }
    }
    printf("  tests/golden/dim.txt: %d vectors, relative error %.2g; scores %.2g, KL %.2g\n", cases,
           vector_error, score_error, kl_error);
    CHECK_THAT(cases > 0, "no cases");
    CHECK_THAT(vector_error <= 2e-5, "vectors: relative error %.3g", vector_error);
    CHECK_THAT(score_error <= 1e-4, "refusal scores: error %.3g", score_error);
    CHECK_THAT(kl_error <= 1e-3, "KL: relative error %.3g", kl_error);
}

/* How far v [n] is off a golden's numbers, as a share of their norm. */
static double share_off(const float *v, const double *wanted, int n) {
    double off = 0, norm = 0;
    for (int i = 0; i < n; i++) {
        off += pow((double)v[i] - wanted[i], 2);
        norm += pow(wanted[i], 2);
    }
    return sqrt(off / norm);
}

/* Vectors of contrasting system prompts and of contrasting responses, in PyTorch's float64; what
 * the means are over does not depend on how many streams there are. */
static void test_golden_means(void) {
    enum { MOST = 8, ROOM = 64, NUMBERS = 1024 };

    golden_lines file = open_golden("tests/golden/means.txt");
    double numbers[NUMBERS], off = 0;
    int ids[2][MOST][ROOM], *tokens[2][MOST], lengths[2][MOST], responses[2][MOST];
    steer_prompts p[2] = {{0}};
    steer_sums sums[2] = {{0}};
    steer_model *m = NULL;
    steer_vector v = {0};
    steer_error e = {0};
    int vectors = 0, at_responses = 0, streams = 16;
    while (golden_line(&file)) {
        const char *word = file.word, *rest = file.rest;
        if (!strcmp(word, "random")) {
            float shape[24] = {0};
            parse_floats(rest, shape, 24);
            m = random_model((int)shape[0], (double)shape[1], random_config(shape), F32);
            for (int k = 0; k < 2; k++) {
                p[k] = (steer_prompts){
                    .tokens = tokens[k], .lengths = lengths[k], .responses = responses[k]};
                sums[k] = (steer_sums){.sum = zeros(sum_size(m, 0), sizeof(double)),
                                       .response = zeros(sum_size(m, 1), sizeof(double))};
            }
        } else if (!strcmp(word, "with") || !strcmp(word, "without")) {
            int k = !strcmp(word, "without"), i = p[k].n++, line[ROOM];
            int n = parse_ints(rest, line, ROOM) - 1;
            memcpy(ids[k][i], line + 1, sizeof *line * (size_t)n);
            tokens[k][i] = ids[k][i];
            lengths[k][i] = line[0];
            responses[k][i] = n - line[0];
        } else if (!strcmp(word, "dim")) {
            int n = parse_doubles(rest, numbers, NUMBERS) - 2, pos = (int)numbers[1];
            steer_limits l = {.streams = streams, .positions = ROOM, .rows = 24};
            steer_context *c = sums[0].n ? NULL : steer_context_new(m, &l, &e);
            for (int k = 0; k < 2 && c; k++)
                CHECK_THAT(!steer_means(c, &p[k], NULL, 0, &sums[k], &e) &&
                               sums[k].count == p[k].n && sums[k].responses == p[k].n,
                           "%d prompts, %d responses of %d: %s", sums[k].count, sums[k].responses,
                           p[k].n, e.text);
            steer_context_free(c);
            streams = 1; /* of the next case */
            steer_vector_free(&v);
            CHECK_THAT(!steer_dim(&v, m, &sums[0], &sums[1], (int)numbers[0], pos, 1, &e), "%s",
                       e.text);
            CHECK_THAT(n == m->config.d && v.pos == pos, "%d numbers, position %d", n, v.pos);
            if (n != m->config.d || !v.v)
                break;
            off = fmax(off, share_off(v.v, numbers + 2, n));
            vectors++;
            at_responses += pos == 0;
        } else if (!strcmp(word, "keep") && v.v) {
            int n = parse_doubles(rest, numbers, NUMBERS) - 2;
            CHECK_THAT(n == 3 * m->config.layers, "%d means along the vector", n);
            off = fmax(off, share_off(v.keep, numbers + 2, 3 * m->config.layers));
        } else if (!strcmp(word, "end")) {
            for (int k = 0; k < 2; k++) {
                free(sums[k].sum);
                free(sums[k].response);
            }
            free_random_model(m);
            m = NULL;
        }
    }
    steer_vector_free(&v);
    free_random_model(m);
    printf("  tests/golden/means.txt: %d vectors, %d of responses, relative error %.2g\n", vectors,
           at_responses, off);
    CHECK_THAT(vectors > 10 && at_responses > 5, "%d vectors", vectors);
    CHECK_THAT(off <= 2e-5, "vectors and means along them: relative error %.3g", off);
}

/* ---------------------------------------------------------------- circuits */

static steer_graph graph_of(int layers, int layer, int heads, int kv_heads) {
    steer_model m = {.config = {.layers = layers, .heads = heads, .kv_heads = kv_heads}};
    return steer_graph_of(&m, layer);
}

/* The graph told again, from the slots' order in steer.h: does node u come before slot v? */
static int is_edge(const steer_graph *g, int u, int v) {
    int width = g->heads + 2 * g->kv_heads + 1, to = v / width, mlp = v == to * width + width - 1;
    if (u == 0 || v == g->slots - 1)
        return 1;
    int from = (u - 1) / (g->heads + 1), is_head = u - 1 - from * (g->heads + 1) < g->heads;
    return from < to || (from == to && is_head && mlp);
}

/* The nodes behind slot v, into behind[]; how many. 0: the output. */
static int nodes_behind(const steer_graph *g, int v, int *behind) {
    int width = g->heads + 2 * g->kv_heads + 1, at = v / width, i = v - at * width;
    int base = 1 + at * (g->heads + 1), n = 0;
    if (v == g->slots - 1)
        return 0;
    for (int h = 0; h < g->heads; h++)
        if (i < g->heads
                ? h == i
                : i < width - 1 && h / (g->heads / g->kv_heads) == (i - g->heads) % g->kv_heads)
            behind[n++] = base + h;
    if (i == width - 1)
        behind[n++] = base + g->heads;
    return n;
}

/* Follow every path of kept edges from node u; mark those that arrive. Returns whether one does. */
static int follow(const steer_graph *g, const unsigned char *kept, int u, unsigned char *on_path) {
    int arrives = 0, behind[64];
    for (int v = 0; v < g->slots; v++) {
        if (!is_edge(g, u, v) || !kept[v * g->nodes + u])
            continue;
        int n = nodes_behind(g, v, behind), through = !n;
        for (int i = 0; i < n; i++)
            through |= follow(g, kept, behind[i], on_path);
        if (through)
            on_path[v * g->nodes + u] = 1;
        arrives |= through;
    }
    return arrives;
}

static int count_of(const unsigned char *a, int n) {
    int sum = 0;
    for (int i = 0; i < n; i++)
        sum += a[i] != 0;
    return sum;
}

/* Every edge has ends, whose numbers are the edge's; other numbers have none, nor names. */
static void check_numbers(const steer_graph *g) {
    int edges = 0, wrong = 0, size = g->slots * g->nodes;
    for (int i = -2; i < size + 2; i++) {
        steer_edge_ends x = {.to = -7};
        char name[64] = "?";
        int into = i / g->nodes, from = i - into * g->nodes;
        int known = i >= 0 && i < size && is_edge(g, from, into);
        int said = steer_edge_of(g, i, &x), length = steer_edge_name(g, i, name, sizeof name);
        wrong += said != known || (length > 0) != known || length != (int)strlen(name);
        if (!said) {
            wrong += x.to != -7;
            continue;
        }
        int node = steer_node(g, x.from, x.head), slot = steer_slot(g, x.to, x.input, x.index);
        wrong += node != from || slot != into || steer_edge(g, node, slot) != i;
        edges++;
    }
    CHECK_THAT(!wrong && edges == g->edges, "%d edges' numbers are wrong, of %d", wrong, edges);
}

static void check_names(void) {
    const steer_graph g = graph_of(6, 2, 4, 2), none = graph_of(6, 6, 4, 2), *q = &g;

    const struct {
        int node, slot;
        const char *name;
    } known[] = {{0, steer_slot(q, 2, STEER_TO_V, 1), "s > v 2.1"},
                 {steer_node(q, 2, 3), steer_slot(q, 2, STEER_TO_MLP, 0), "head 2.3 > mlp 2"},
                 {steer_node(q, 2, -1), steer_slot(q, 4, STEER_TO_Q, 3), "mlp 2 > q 4.3"},
                 {steer_node(q, 3, 0), steer_slot(q, 5, STEER_TO_K, 0), "head 3.0 > k 5.0"},
                 {steer_node(q, 5, -1), steer_slot(q, 6, STEER_TO_LOGITS, 0), "mlp 5 > lm_head"}};

    char name[64];
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        steer_edge_name(q, steer_edge(q, known[i].node, known[i].slot), name, sizeof name);
        CHECK_THAT(!strcmp(name, known[i].name), "\"%s\", not \"%s\"", name, known[i].name);
    }
    int length = steer_edge_name(q, steer_edge(q, 0, 0), name, 4);
    CHECK_THAT(length == 9 && !strcmp(name, "s >"), "cut to 3 bytes: %d, \"%s\"", length, name);

    /* Numbers that are none: of another block, head, group or kind. */
    int none_of[] = {steer_node(q, 1, 0),
                     steer_node(q, 6, 0),
                     steer_node(q, 2, 4),
                     steer_node(q, 2, -2),
                     steer_node(q, -1, 0),
                     steer_node(&none, -1, -1),
                     steer_slot(q, 1, STEER_TO_Q, 0),
                     steer_slot(q, 6, STEER_TO_Q, 0),
                     steer_slot(q, 2, STEER_TO_K, 2),
                     steer_slot(q, 2, STEER_TO_MLP, 1),
                     steer_slot(q, 5, STEER_TO_LOGITS, 0),
                     steer_slot(q, 2, (steer_input)7, 0),
                     steer_edge(q, steer_node(q, 2, 0), steer_slot(q, 2, STEER_TO_Q, 0)),
                     steer_edge(q, -1, 3),
                     steer_edge(q, 0, g.slots),
                     steer_edge(q, 0, -1)};
    for (size_t i = 0; i < sizeof none_of / sizeof *none_of; i++)
        CHECK_THAT(none_of[i] == -1, "number %zu is %d", i, none_of[i]);

    /* Graphs and orders that are none. */
    steer_graph wrong[] = {g, g, g, g, none, g, g};
    wrong[0].nodes++;
    wrong[1].slots--;
    wrong[2].kv_heads = 3;
    wrong[3].layer = -1;
    wrong[5].blocks = INT_MAX;
    wrong[6].edges--;
    int order[4096];
    unsigned char kept[8192];
    steer_error e = {0};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        CHECK_THAT(steer_circuit_order(&wrong[i], NULL, 1, order, &e) == STEER_EARG &&
                       steer_circuit_select(&wrong[i], order, 1, STEER_SIMPLE, kept, &e) == -1 &&
                       steer_circuit_prune(&wrong[i], kept, NULL) == -1 &&
                       steer_circuit_cut(&wrong[i], kept, 0, kept, NULL) == STEER_EARG &&
                       strstr(e.text, "graph"),
                   "graph %zu: %s", i, e.text);
    CHECK_THAT(g.edges <= 4096 && g.slots * g.nodes <= 8192 &&
                   !steer_circuit_order(q, NULL, 1, order, &e),
               "%s", e.text);
    for (int i = 0; i < 3; i++) {
        static const int strange[] = {-1, INT_MAX, 1 /* node 1 sends to no query of its block */};
        order[7] = strange[i];
        CHECK_THAT(steer_circuit_select(q, order, 9, STEER_FORWARD, kept, &e) == -1 &&
                       e.code == STEER_EARG,
                   "an order with edge %d", strange[i]);
    }
}

static void check_counts(void) {
    static const struct {
        const char *name;
        int L, l, H, K, nodes, edges, kind[5], from[3];
    } known[] = {
        {"Gemma 2 2B", 26, 15, 8, 4, 100, 8790, {4048, 2024, 2024, 594, 100}, {188, 7656, 946}},
        {"Llama 3.2 3B",
         28,
         12,
         24,
         8,
         401,
         124441,
         {72384, 24128, 24128, 3400, 401},
         {657, 118848, 4936}},
        {"Qwen3 8B", 36, 20, 32, 8, 529, 195865, {127232, 31808, 31808, 4488, 529}, {0, 0, 0}}};

    for (int i = 0; i < 3; i++) {
        steer_graph g = graph_of(known[i].L, known[i].l, known[i].H, known[i].K);
        int kind[5] = {0}, from[3] = {0}, width = g.heads + 2 * g.kv_heads + 1, wrong = 0;
        CHECK_THAT(g.nodes == known[i].nodes && g.edges == known[i].edges &&
                       g.slots == (known[i].L - known[i].l) * width + 1,
                   "%s: %d nodes, %d slots, %d edges", known[i].name, g.nodes, g.slots, g.edges);
        for (int v = 0; v < g.slots; v++)
            for (int u = 0; u < g.nodes; u++) {
                int at = v % width, edge = u < senders(&g, v), input = STEER_TO_MLP;
                wrong += edge != is_edge(&g, u, v);
                if (!edge)
                    continue;
                if (v == g.slots - 1)
                    input = STEER_TO_LOGITS;
                else if (at < g.heads)
                    input = STEER_TO_Q;
                else if (at < g.heads + g.kv_heads)
                    input = STEER_TO_K;
                else if (at < width - 1)
                    input = STEER_TO_V;
                kind[input]++;
                from[!u ? 0 : 1 + ((u - 1) % (g.heads + 1) == g.heads)]++;
            }
        for (int k = 0; k < 5; k++)
            CHECK_THAT(kind[k] == known[i].kind[k], "%s: %d edges of kind %d", known[i].name,
                       kind[k], k);
        for (int k = 0; k < 3 && known[i].from[0]; k++)
            CHECK_THAT(from[k] == known[i].from[k], "%s: %d edges from %d", known[i].name, from[k],
                       k);
        CHECK_THAT(!wrong, "%s: %d pairs are edges for one and not for the other", known[i].name,
                   wrong);
    }
    for (int i = 0; i < 60; i++) { /* the number of earlier nodes, and who reads what */
        int K = 1 + roll(3), H = K * (1 + roll(3)), L = 1 + roll(5), l = roll(L), edges = 0, A = 1;
        steer_graph g = graph_of(L, l, H, K);
        for (int b = l; b < L; b++, A += H + 1)
            edges += (H + 2 * K) * A + A + H;
        CHECK_THAT(g.edges == edges + A && g.nodes == A, "L %d, l %d, H %d, K %d: %d edges", L, l,
                   H, K, g.edges);
        for (int v = 0; v < g.slots; v++) {
            int behind[64], n = nodes_behind(&g, v, behind), first = 0, got = fed_by(&g, v, &first);
            CHECK_THAT(got == n && (!n || first == behind[0]) &&
                           (n < 2 || behind[n - 1] == first + n - 1),
                       "slot %d feeds %d nodes from %d", v, got, first);
        }
        check_numbers(&g);
    }
}

/* Strongest first by repeated search: what every selection begins with. */
static int strongest(const steer_graph *g, const double *score, const unsigned char *taken,
                     const unsigned char *allowed) {
    int best = -1;
    for (int v = 0; v < g->slots; v++)
        for (int u = 0; u < g->nodes; u++) {
            int i = v * g->nodes + u;
            if (!is_edge(g, u, v) || taken[i] || (allowed && !allowed[i]))
                continue;
            if (best < 0 || fabs(score[i]) > fabs(score[best]))
                best = i;
        }
    return best;
}

static void check_selection(int L, int H, int K, double density, int round) {
    enum { MOST = 4096 };

    steer_graph g = graph_of(L, 0, H, K);
    int size = g.slots * g.nodes, behind[64], n;
    unsigned char kept[MOST] = {0}, pruned[MOST] = {0}, on_path[MOST] = {0}, rest[MOST] = {0};
    double score[MOST] = {0};
    int order[MOST] = {0};
    steer_error e = {0};
    for (int v = 0; v < g.slots; v++)
        for (int u = 0; u < g.nodes; u++) {
            int i = v * g.nodes + u;
            kept[i] = is_edge(&g, u, v) && random_unit(&dice) < density;
            score[i] = round % 3 ? 2 * random_unit(&dice) - 1 : roll(5) - 2; /* with many ties */
        }
    memcpy(pruned, kept, (size_t)size);
    memset(on_path, 0, sizeof on_path);
    follow(&g, kept, 0, on_path);
    n = steer_circuit_prune(&g, pruned, &e);
    CHECK_THAT(!memcmp(pruned, on_path, (size_t)size) && n == count_of(on_path, size),
               "%d blocks, %d heads, %d groups: %d edges pruned to %d, %d are on paths", L, H, K,
               count_of(kept, size), n, count_of(on_path, size));
    CHECK_THAT(steer_circuit_prune(&g, pruned, &e) == n, "pruning twice");

    CHECK_THAT(!steer_circuit_order(&g, score, 0, order, &e), "%s", e.text);
    double whole = score[order[3]];
    int there = order[3];
    score[there] = NAN;
    CHECK_THAT(steer_circuit_order(&g, score, 0, order, &e) == STEER_ENONFINITE,
               "a score that is no number: %s", e.text);
    score[there] = whole;
    CHECK_THAT(!steer_circuit_order(&g, score, 0, order, &e), "%s", e.text);
    memset(rest, 0, sizeof rest);
    for (int i = 0, at; i < g.edges; i++, rest[at] = 1) { /* falling, ties in the edges' order */
        at = strongest(&g, score, rest, NULL);
        CHECK_THAT(order[i] == at, "edge %d in the order is %d, not %d", i, order[i], at);
        if (order[i] != at)
            break;
    }
    /* Simple: the least c whose pruned top c has n edges. */
    int want = 1 + roll(g.edges),
        got = steer_circuit_select(&g, order, want, STEER_SIMPLE, kept, &e), c = want - 1,
        least = 0;
    while (least < want && c++ < g.edges) {
        memset(rest, 0, sizeof rest);
        memset(on_path, 0, sizeof on_path);
        for (int i = 0; i < c; i++)
            rest[order[i]] = 1;
        if (L > 1 && c > 60) { /* every path of a dense graph: too many; prune is checked above */
            memcpy(on_path, rest, (size_t)size);
            least = prune(&g, on_path);
        } else {
            follow(&g, rest, 0, on_path);
            least = count_of(on_path, size);
        }
    }
    CHECK_THAT(got >= want && got == least && got == count_of(kept, size) &&
                   !memcmp(kept, on_path, (size_t)size),
               "simple, %d wanted: %d edges, %d by the definition", want, got, least);
    /* Greedy, both ways. */
    for (int forward = 0; forward < 2; forward++) {
        unsigned char inside[256] = {0};
        want = 1 + roll(g.edges);
        got = steer_circuit_select(&g, order, want, forward ? STEER_FORWARD : STEER_BACKWARD, kept,
                                   &e);
        memset(rest, 0, sizeof rest);
        inside[0] = (unsigned char)forward;
        for (int k = 0; k < want; k++) {
            memset(on_path, 0, sizeof on_path); /* here: the edges that may be added */
            for (int v = 0; v < g.slots; v++) {
                int m = nodes_behind(&g, v, behind), any = !m;
                for (int j = 0; j < m; j++)
                    any |= inside[behind[j]];
                for (int u = 0; u < g.nodes; u++)
                    on_path[v * g.nodes + u] = (unsigned char)(forward ? inside[u] : any);
            }
            int at = strongest(&g, score, rest, on_path);
            if (at < 0)
                break;
            rest[at] = 1;
            int into = at / g.nodes, m = nodes_behind(&g, into, behind);
            for (int j = 0; j < m && forward; j++)
                inside[behind[j]] = 1;
            if (!forward)
                inside[at - into * g.nodes] = 1;
        }
        CHECK_THAT(got == want && count_of(kept, size) == want && !memcmp(kept, rest, (size_t)size),
                   "greedy %s: %d edges of %d", forward ? "forward" : "backward", got, want);
    }
    /* A circuit's cuts and its complement's share nothing and leave no edge out. */
    CHECK_THAT(!steer_circuit_cut(&g, kept, 0, pruned, &e) &&
                   !steer_circuit_cut(&g, kept, 1, rest, &e),
               "%s", e.text);
    int wrong = 0;
    for (int v = 0; v < g.slots; v++)
        for (int u = 0; u < g.nodes; u++) {
            int i = v * g.nodes + u, edge = is_edge(&g, u, v);
            wrong += rest[i] != (edge && kept[i]) || pruned[i] != (edge && !kept[i]);
        }
    CHECK_THAT(!wrong, "%d cuts are wrong", wrong);
    /* Random order: a permutation that its seed repeats. */
    int again[MOST], other[MOST];
    CHECK_THAT(!steer_circuit_order(&g, NULL, 42, order, &e) &&
                   !steer_circuit_order(&g, NULL, 42, again, &e) &&
                   !steer_circuit_order(&g, NULL, 5, other, &e),
               "%s", e.text);
    memset(rest, 0, sizeof rest);
    int same = 0, equal = 1;
    for (int i = 0; i < g.edges; i++) {
        equal &= order[i] == again[i];
        same += order[i] == other[i];
        wrong += rest[order[i]]++ || !is_edge(&g, order[i] % g.nodes, order[i] / g.nodes);
    }
    CHECK_THAT(equal && !wrong && (same < g.edges / 2 || g.edges < 20),
               "random orders: %d wrong, %d in "
               "the same place under another seed",
               wrong, same);
}

/* Exact patching, in any batch: its runs, which start where something is patched, have the bits of
 * whole ones, each alone. */
static void check_exact(int kind, int text) {
    static const int streams[] = {7, 3, 1};
    traced w = {0};
    steer_error e = {0};
    if (!open_traced(&w, kind, 12, 4, 7, text))
        return;
    tracer *t = w.t;
    const steer_graph *g = &t->graph;
    int source = !text, size = g->slots * g->nodes, wrong = 0, zero = 0;
    double node[64], *edge = zeros((size_t)size, sizeof *edge);
    unsigned char *cut = zeros((size_t)size, 1);
    for (size_t k = 0; k < sizeof streams / sizeof *streams; k++) {
        t->cut_streams = streams[k];
        memset(node, 0, sizeof node);
        CHECK_THAT(!steer_patch_exactly(t, &w.x, w.v, node, edge, &e), "%s", e.text);
        int n_poi = find_poi(t, &w.x, STEER_LOGIT);
        double before = metric_of(t, STEER_LOGIT, source, t->final[!source], n_poi), difference;
        changes runs[2] = {{.layer = 1, .start = t->tape[0].resid}};
        runs[1] = runs[0];
        runs[1].add = w.v;
        runs[1].coeff = w.x.coeff;
        changes patched = runs[!source];
        patched.cut = cut;
        CHECK_THAT(n_poi > 0, "%s: no positions of interest", family_names[kind]);
        for (int i = -g->nodes; i < size; i++) {
            if (i >= 0 && !has_edge(g, i))
                continue;
            memset(cut, 0, (size_t)size);
            for (int j = 0; j < size; j++)
                cut[j] = has_edge(g, j) && (i < 0 ? j % g->nodes == i + g->nodes : j == i);
            CHECK_THAT(!patched_differences(t, &w.x, plan_of(&runs[source]), plan_of(&patched), 1,
                                            source, n_poi, &difference, NULL, &e),
                       "%s", e.text);
            double worth = i < 0 ? node[i + g->nodes] : edge[i];
            wrong += worth != difference / n_poi - before;
            zero += worth == 0;
        }
    }
    CHECK_THAT(!wrong && zero < g->edges, "%s, text %d: %d patches of other bits, %d worth nothing",
               family_names[kind], text, wrong, zero);
    free(edge);
    free(cut);
    close_traced(&w);
}

static double check_faithful(int kind, int text) {
    enum { SETS = 9 };

    traced w = {0};
    steer_error e = {0};
    if (!open_traced(&w, kind, 12, 4, 7, text))
        return INFINITY;
    tracer *t = w.t;
    int d = w.m->config.d, size = t->graph.slots * t->graph.nodes,
        answers_n = w.x.n - w.x.n_prompt + 1;
    unsigned char *cut = zeros(SETS * (size_t)size, 1), *kept = zeros((size_t)size, 1);
    int *order = zeros((size_t)t->graph.edges, sizeof *order);
    float *final = malloc(sizeof *final * (size_t)d);
    int tokens = answers_n - 1;
    double F[2][SETS], *D = calloc((SETS + 2) * (size_t)tokens, sizeof *D), most = 0;
    CHECK_THAT(!steer_circuit_order(&t->graph, NULL, 3, order, &e), "%s", e.text);
    for (int i = 0; i < SETS; i++) { /* plan 0 keeps nothing, plan 1 all, the others a share */
        memset(kept, i == 1, (size_t)size);
        if (i > 1)
            CHECK_THAT(steer_circuit_select(&t->graph, order, t->graph.edges * (i - 1) / 9,
                                            STEER_SIMPLE, kept, &e) > 0,
                       "%s", e.text);
        CHECK_THAT(!steer_circuit_cut(&t->graph, kept, 0, cut + i * size, &e), "%s", e.text);
    }
    CHECK_THAT(count_of(cut, size) == t->graph.edges && !count_of(cut + size, size), "ends");
    changes cuts[SETS];
    steer_plan plans[SETS];
    static const int stream_counts[] = {7, 3, 1};
    for (int k = 0; k < 3; k++) {
        int used = t->cut_streams, streams = stream_counts[k];
        t->cut_streams = streams;
        for (int i = 0; i < SETS; i++) {
            cuts[i] = (changes){.layer = 1, .cut = cut + i * size};
            plans[i] = *plan_of(&cuts[i]);
        }
        CHECK_THAT(!steer_faithfulness(t, &w.x, w.v, plans, SETS, F[streams != 7],
                                       streams == 1 ? D : NULL, &e),
                   "%s", e.text);
        t->cut_streams = used;
        CHECK_THAT(streams == 7 || !memcmp(F[0], F[1], sizeof F[0]), "%s: F depends on the batch",
                   family_names[kind]);
    }
    most = fmax(fabs(F[0][0]), fabs(F[0][1] - 1));
    CHECK_THAT(most <= 1e-4 && F[0][1] == 1, "%s: empty %.8g, full %.8g", family_names[kind],
               F[0][0], F[0][1]);
    for (int i = 0; i < SETS; i++) { /* token by token: the same */
        double base = 0, steered = 0, plan = 0;
        for (int j = 0; j < tokens; j++) {
            base += D[j];
            steered += D[tokens + j];
            plan += D[(2 + i) * tokens + j];
            CHECK_THAT(i != 1 || D[3 * tokens + j] == D[tokens + j], "token %d of the full one", j);
        }
        CHECK_THAT((plan - base) / (steered - base) == F[0][i], "%s: F of plan %d by token",
                   family_names[kind], i);
    }
    free(D);
    int alike = 0;
    for (int i = 2; i < SETS; i++)
        alike += fabs(F[0][i]) < 1e-3 || fabs(F[0][i] - 1) < 1e-3;
    CHECK_THAT(alike < SETS / 2, "%s: %d partial circuits are like the empty or the full one",
               family_names[kind], alike);
    /* And so are the states themselves: no edge cut gives the steered run's bits. */
    CHECK_THAT(!run_ends(t, &w.x, w.v, &e), "%s", e.text);
    changes base = {.layer = 1, .start = t->tape[0].resid};
    for (int i = 0; i < SETS; i++) {
        cuts[i] = (changes){.layer = 1,
                            .add = w.v,
                            .coeff = w.x.coeff,
                            .cut = cut + i * size,
                            .start = t->tape[0].resid};
        plans[i] = *plan_of(&cuts[i]);
    }
    const steer_plan *list[3] = {plan_of(&base), &plans[0], &plans[1]};
    CHECK_THAT(!run_example(t, &w.x, list, 3, NULL, &e), "%s", e.text);
    fit off = {0, 0};
    int differ = 0;
    for (int i = 0; i < answers_n; i++)
        for (int k = 0; k < 3; k++) {
            final_norm(t->c, k * w.x.n + w.x.n_prompt - 1 + i, final);
            const float *expected = row_at(t->final[k == 2], i, d);
            if (k != 1)
                differ += !!memcmp(final, expected, sizeof *final * (size_t)d);
            for (int j = 0; j < d; j++)
                hold(&off, (double) final[j], (double)expected[j]);
        }
    CHECK_THAT(!differ, "%s: uncut rows have other bits at %d positions", family_names[kind],
               differ);
    CHECK_THAT(misfit(&off) <= 1e-4, "%s: the empty circuit's states: %.3g", family_names[kind],
               misfit(&off));
    /* Edges cut before a position only: before it the empty circuit's bits, behind it others. */
    int to = w.x.n_prompt + 1;
    steer_edit early[3];
    memcpy(early, plans[0].edits, sizeof early);
    for (int i = 0; i < 3; i++)
        early[i].to = early[i].kind == STEER_CUT ? to : 0;
    const steer_plan until = {early, 3}, *ends[3] = {&base.plan, &plans[0], &until};
    CHECK_THAT(!run_example(t, &w.x, ends, 3, NULL, &e), "%s", e.text);
    float *other = malloc(sizeof *other * (size_t)d);
    for (int i = 0; i < w.x.n; i++) {
        final_norm(t->c, w.x.n + i, final);
        final_norm(t->c, 2 * w.x.n + i, other);
        CHECK_THAT(!memcmp(final, other, sizeof *final * (size_t)d) == (i < to),
                   "%s: cut before %d, position %d", family_names[kind], to, i);
    }
    free(other);
    /* Circuits in between, side by side, against the same in double. */
    fit partial = {0, 0};
    size_t plane = (size_t)(w.x.n * d);
    double *start = doubles(t->tape[0].resid, plane), *states = doubles(NULL, plane),
           *nodes[2] = {doubles(NULL, plane * (size_t)t->graph.nodes),
                        doubles(NULL, plane * (size_t)t->graph.nodes)};
    pushed p = {.m = w.m, .layer = 1, .n = w.x.n, .kind = -1, .start = start, .nodes = nodes[0]};
    const steer_plan *all[SETS - 1] = {&base.plan};
    int64_t hits[1 + 3 * SETS] = {0};
    pushed_value(&p, 0);
    for (size_t i = 0; i < plane; i++)
        start[i] += (double)w.x.coeff * (double)w.v[i % (size_t)d];
    for (int i = 2; i < SETS; i++)
        all[i - 1] = &plans[i];
    CHECK_THAT(!run_streams(t, &w.x, all, SETS - 1, hits, NULL, &e), "%s", e.text);
    for (int i = 0; i < 1 + 3 * (SETS - 2); i++) /* one start; a start, an addition, cuts each */
        CHECK_THAT(hits[i] == w.x.n, "edit %d: on %lld rows", i, (long long)hits[i]);
    p.nodes = nodes[1];
    p.other = nodes[0];
    p.final = states;
    for (int i = 2; i < SETS; i++) {
        p.cut = cut + i * size;
        pushed_value(&p, 0);
        for (int k = 0; k < answers_n; k++) {
            int at = w.x.n_prompt - 1 + k;
            final_norm(t->c, (i - 1) * w.x.n + at, final);
            for (int j = 0; j < d; j++)
                hold(&partial, (double) final[j], states[at * d + j]);
        }
    }
    CHECK_THAT(misfit(&partial) <= 1e-5, "%s: circuits in between: relative error %.3g",
               family_names[kind], misfit(&partial));
    free(start);
    free(states);
    free(nodes[0]);
    free(nodes[1]);
    free(cut);
    free(kept);
    free(order);
    free(final);
    close_traced(&w);
    return fmax(fmax(most, misfit(&off)), misfit(&partial));
}

static void test_circuits(void) {
    static const unsigned char a[] = {1, 1, 1, 0, 0, 1}, b[] = {0, 1, 1, 1, 1, 1}, none[6] = {0};
    double most = 0;
    dice = 20;
    check_counts();
    check_names();
    for (int round = 0; round < 40; round++) {
        check_selection(1, 1 + round % 3, 1, 0.6, round);
        check_selection(1, 4, 2, 0.5, round);
        check_selection(2, 2, 1 + round % 2, round % 5 ? 0.3 : 1, round);
        check_selection(3, 2, 2, 0.12 + 0.03 * (round % 3), round);
    }
    CHECK_THAT(fabs(steer_circuit_overlap(a, b, 6, 0) - 0.75) < 1e-12 &&
                   steer_circuit_overlap(a, b, 6, 1) == 0.5 &&
                   steer_circuit_overlap(b, a, 6, 0) == steer_circuit_overlap(a, b, 6, 0) &&
                   steer_circuit_overlap(a, a, 6, 1) == 1 &&
                   steer_circuit_overlap(a, a, 6, 0) == 1 &&
                   steer_circuit_overlap(a, none, 6, 0) == 0 &&
                   steer_circuit_overlap(none, none, 6, 1) == 0,
               "overlaps");
    for (int kind = 0; kind < FAMILIES; kind++)
        for (int text = 0; text < 2; text++) {
            most = fmax(most, check_faithful(kind, text));
            check_exact(kind, text);
        }
    printf("  empty circuits are the base run, full ones the steered, others as in double: largest "
           "error %.2g\n",
           most);
}

/* ---------------------------------------------------------------- value vectors */

/* Method 6.6: z of a run under the vector, and of one from whose values its image is removed,
 * differ in block l by what a (sum_u A[t,u] c_u) svv_h(s) says, whatever the text. */
static double check_removal(int kind, int from) {
    enum { N = 10, LAYER = 1 };

    traced w = {0};
    steer_error e = {0};
    if (!open_traced(&w, kind, N, 4, 1, 1))
        return INFINITY;
    const steer_config *c = &w.m->config;
    const block *b = &w.m->blocks[LAYER];
    int d = c->d, H = c->heads, K = c->kv_heads, hd = c->head_dim, depth = c->layers - LAYER;
    changes plain = {.add = w.v, .coeff = w.x.coeff, .layer = LAYER, .from = from}, removed = plain;
    removed.remove = STEER_SVV;
    const steer_plan *plans[2] = {plan_of(&plain), plan_of(&removed)};
    steer_tape tape[2] = {new_tape(w.t), new_tape(w.t)};
    for (int k = 0; k < 2; k++)
        CHECK_THAT(
            !run_streams(w.t, &w.x, &plans[k], 1, k ? removed.hits : plain.hits, &tape[k], &e),
            "%s", e.text);
    CHECK_THAT(hits_of(&removed, STEER_REMOVE) == (N - from) * depth, "%lld rows",
               hits_of(&removed, STEER_REMOVE));
    double q[N * MOST_Q], key[N * MOST_Q], r[N], p[N], x[MOST_D];
    for (int t = 0; t < N; t++) {
        const float *of = row_at(tape[0].resid, t, d);
        for (int i = 0; i < d; i++)
            x[i] = (double)of[i];
        r[t] = t < from ? 0 : inverse_rms64(x, (double)c->norm_eps, d);
        for (int i = 0; i < H * hd; i++)
            q[t * H * hd + i] = (double)row_at(tape[0].q, t, H * hd)[i];
        for (int i = 0; i < K * hd; i++)
            key[t * K * hd + i] = (double)row_at(tape[0].k, t, K * hd)[i];
        CHECK_THAT(!memcmp(row_at(tape[0].q, t, H * hd), row_at(tape[1].q, t, H * hd),
                           sizeof(float) * (size_t)(H * hd)) &&
                       !memcmp(row_at(tape[0].k, t, K * hd), row_at(tape[1].k, t, K * hd),
                               sizeof(float) * (size_t)(K * hd)),
                   "removal touches queries or keys at %d", t);
    }
    fit off = {0, 0};
    float svv[MOST_D];
    for (int h = 0; h < H; h++) {
        CHECK_THAT(!steer_value_vector(w.m, w.v, LAYER, h, svv, &e), "%s", e.text);
        for (int t = 0; t < N; t++) {
            double strength = 0;
            pattern64(c, LAYER, h, t, q, key, p);
            for (int u = 0; u <= t; u++)
                strength += (double)w.x.coeff * p[u] * r[u];
            for (int j = 0; j < d; j++) { /* through W_O and, before its scale, the post-norm */
                double shift = 0;
                for (int i = 0; i < hd; i++)
                    shift += weight_value(&b->o, j, h * hd + i) *
                             ((double)row_at(tape[0].z, t, H * hd)[h * hd + i] -
                              (double)row_at(tape[1].z, t, H * hd)[h * hd + i]);
                if (c->post_norms)
                    shift *= (double)c->norm_offset + (double)b->post_attn_norm[j];
                hold(&off, shift, strength * (double)svv[j]);
            }
        }
    }
    CHECK_THAT(misfit(&off) <= 1e-5 && off.largest > 0.01,
               "%s from %d: relative error %.3g of %.3g", family_names[kind], from, misfit(&off),
               off.largest);
    free_tape(&tape[0]);
    free_tape(&tape[1]);
    close_traced(&w);
    return misfit(&off);
}

static void test_value_vectors(void) {
    enum { TOP = 5 };

    double most = 0;
    steer_error e = {0};
    for (int kind = 0; kind < FAMILIES; kind++) {
        for (int from = 0; from < 6; from += 3)
            most = fmax(most, check_removal(kind, from));
        /* The lens: the n largest of W_U RN(v), falling, however long v is; its sign counts. */
        const steer_model *m = family(kind);
        int d = m->config.d, vocab = m->config.vocab, ids[2][TOP];
        float *v = floats(101, kind, (size_t)d, 1), *far = floats(101, kind, (size_t)d, 1e-4),
              logits[2][TOP];
        for (int sign = 0; sign < 2; sign++) {
            double x[MOST_D], y[MOST_D], z[64];
            for (int i = 0; i < d; i++) {
                v[i] *= -1;
                far[i] *= -1;
                x[i] = (double)v[i];
            }
            double r = inverse_rms64(x, 0, d);
            for (int i = 0; i < d; i++)
                y[i] = x[i] * r * ((double)m->config.norm_offset + (double)m->final_norm[i]);
            product64(z, &m->unembed, 0, vocab, y, NULL);
            CHECK_THAT(!steer_logit_lens(m, v, TOP, ids[0], logits[0], &e), "%s", e.text);
            CHECK_THAT(!steer_logit_lens(m, far, TOP, ids[1], logits[1], &e), "%s", e.text);
            for (int i = 0; i < TOP; i++) {
                int above = 0;
                for (int j = 0; j < vocab; j++)
                    above += z[j] > z[ids[0][i]];
                CHECK_THAT(above == i && ids[0][i] == ids[1][i], "lens: token %d is number %d",
                           ids[0][i], above);
                CHECK_THAT(fabs((double)logits[0][i] - z[ids[0][i]]) < 1e-5 &&
                               fabs((double)logits[1][i] - z[ids[0][i]]) < 1e-5,
                           "lens: %g and %g, not %g", (double)logits[0][i], (double)logits[1][i],
                           z[ids[0][i]]);
            }
        }
        free(v);
        free(far);
    }
    /* Heads, blocks and tokens that are not there. */
    const steer_model *m = family(0);
    const steer_config *c = &m->config;
    float v[MOST_D] = {1}, to[MOST_D], logits[2];
    const int none[][2] = {{-1, 0}, {c->layers, 0}, {0, -1}, {0, c->heads}};
    int ids[2];
    for (int i = 0; i < 4; i++)
        CHECK_THAT(steer_value_vector(m, v, none[i][0], none[i][1], to, &e) == STEER_EARG &&
                       strstr(e.text, "no head"),
                   "head %d.%d: %s", none[i][0], none[i][1], e.text);
    CHECK_THAT(steer_logit_lens(m, v, 0, ids, logits, &e) == STEER_EARG &&
                   steer_logit_lens(m, v, c->vocab + 1, ids, logits, &e) == STEER_EARG,
               "no token, or too many");
    printf("  removing the image: relative error %.2g\n", most);
}

/* ---------------------------------------------------------------- sparse vectors */

/* How many stay, or -1: then a check has failed. */
static int sparsely(const float *v, const double *effect, int d, double tau, int rule,
                    uint64_t seed, int renormalise, float *to) {
    steer_error e = {0};
    int kept = steer_sparsify(v, effect, d, tau, (steer_sparsity)rule, seed, renormalise, to, &e);
    CHECK_THAT(kept >= 0, "%s", e.text);
    return kept;
}

static void check_rules(int d, int round) {
    enum { MOST = 300 };

    static const double levels[] = {0, 0.1, 0.5, 1, 1.5, 2.5, 1e9};
    float v[MOST], to[MOST], again[MOST];
    double effect[MOST], v_norm = 0, e_norm = 0;
    for (int i = 0; i < d; i++) {
        v[i] = (float)(2 * random_unit(&dice) - 1);
        effect[i] = random_normal(&dice);
        if (round % 2 && i % 7 == 3)
            v[i] = 0;
        if (round % 2 && i % 7 == 5)
            effect[i] = 0;
        v_norm += (double)v[i] * (double)v[i];
        e_norm += effect[i] * effect[i];
    }
    v_norm = sqrt(v_norm);
    e_norm = sqrt(e_norm);
    for (int level = 0; level < 7; level++) {
        double tau = levels[level];
        unsigned char gone[MOST];
        int expected = 0;
        for (int i = 0; i < d; i++) /* as products, not as a quotient */
            expected += gone[i] = fabs(effect[i]) * v_norm < tau * fabs((double)v[i]) * e_norm;
        for (int rule = 0; rule < 4; rule++)
            for (int renormalise = 0; renormalise < 2; renormalise++) {
                int kept = sparsely(v, effect, d, tau, rule, 42, renormalise, to), zeroed = 0;
                double left = 0, dropped_most = -1, kept_least = INFINITY;
                CHECK_THAT(kept == d - expected, "rule %d, tau %g: %d stay, not %d", rule, tau,
                           kept, d - expected);
                double scale = 0;
                for (int i = 0; i < d; i++) {
                    double by = rule == STEER_BY_EFFECT ? fabs(effect[i]) : fabs((double)v[i]);
                    left += (double)to[i] * (double)to[i];
                    if (v[i] == 0)
                        continue; /* is 0 in any case */
                    zeroed += to[i] == 0;
                    if (to[i] != 0 && scale == 0)
                        scale = (double)to[i] / (double)v[i];
                    if (to[i] == 0)
                        dropped_most = fmax(dropped_most, by);
                    else
                        kept_least = fmin(kept_least, by);
                    CHECK_THAT(rule != STEER_BY_GRADIENT || gone[i] == (to[i] == 0),
                               "tau %g: dimension %d", tau, i);
                    CHECK_THAT(to[i] == 0 || fabs((double)to[i] - scale * (double)v[i]) <
                                                 1e-6 * fabs((double)to[i]),
                               "rule %d: %g became %g", rule, (double)v[i], (double)to[i]);
                }
                if (!(round % 2))
                    CHECK_THAT(zeroed == expected, "rule %d: %d zeros of %d", rule, zeroed,
                               expected);
                if (rule == STEER_BY_EFFECT || rule == STEER_BY_MAGNITUDE)
                    CHECK_THAT(dropped_most <= kept_least, "rule %d drops %g, keeps %g", rule,
                               dropped_most, kept_least);
                if (zeroed < count_of(gone, d) || left > 0)
                    CHECK_THAT(renormalise ? fabs(sqrt(left) / v_norm - 1) < 1e-6
                                           : scale == 1 || left == 0,
                               "rule %d, tau %g: norm %g of %g", rule, tau, sqrt(left), v_norm);
                CHECK_THAT(isfinite(left) && (tau > 0 || kept == d), "tau 0 keeps all: %d", kept);
                if (rule != STEER_BY_CHANCE || tau > 1 || tau < 0.5)
                    continue;
                sparsely(v, effect, d, tau, rule, 42, renormalise, again);
                CHECK_THAT(!memcmp(to, again, sizeof *to * (size_t)d), "a seed repeats itself");
                sparsely(v, effect, d, tau, rule, 43, renormalise, again);
                CHECK_THAT(memcmp(to, again, sizeof *to * (size_t)d) || d < 20,
                           "another seed drops the same");
            }
    }
}

/* P(overlap >= k) of all n2 of d with the first n1, by counting every subset. */
static double counted_overlap(int d, int n1, int n2, int k) {
    int all = 0, hits = 0;
    for (int set = 0; set < 1 << d; set++) {
        if (__builtin_popcount((unsigned)set) != n2)
            continue;
        all++;
        hits += __builtin_popcount((unsigned)set & ((1u << n1) - 1)) >= k;
    }
    return (double)hits / all;
}

/* agreement_table on three vectors: two alike, a third that keeps other dimensions. */
static void check_agreement(void) {
    enum { D = 200 };

    steer_model m = {.config = {.d = D, .layers = 2, .heads = 1, .kv_heads = 1}};
    report out = {0};
    steer_error e = {0};
    experiment s = {.m = &m, .out = &out, .e = &e, .methods = 3};
    tracer graph_only = {.m = &m, .graph = steer_graph_of(&m, 1)};
    s.t = &graph_only;
    for (int k = 0; k < 3; k++) {
        s.vectors[k].v = floats(110, k, D, 1);
        s.vectors[k].scores = zeros(scores_width(s.t), sizeof(double));
        double *by = vector_scores(s.t, s.vectors[k].scores);
        for (int i = 0; i < D;
             i++) /* the first half matters to two of them, the second to the third */
            by[i] = (double)s.vectors[k].v[i] * ((i < D / 2) == (k < 2) ? 2 : 0.01);
    }
    int tested = agreement_table(&s) ? -1 : s.findings.tested, large = 0, rows = 0;
    CHECK_THAT(n_entries(&out) == 1, "%zu entries", n_entries(&out));
    for (size_t i = 0; i < n_entries(&out); i++) {
        const entry *t = AT(out.entries, entry, i);
        for (int r = 0; r < t->n_rows; r++) {
            double tau = value_of(&out, t, r, "tau"), iou = value_of(&out, t, r, "IoU"),
                   both = value_of(&out, t, r, "both"), p10 = value_of(&out, t, r, "log10 p");
            int enough = fmin(value_of(&out, t, r, "kept A"), value_of(&out, t, r, "kept B")) >= 20;
            rows++;
            large += enough;
            CHECK_THAT(isnan(p10) == !enough, "a probability of sets that are too small");
            if (tau < 0.4 || tau > 1.2)
                continue; /* half of the dimensions stay */
            CHECK_THAT(value_of(&out, t, r, "kept A") == D / 2 &&
                           value_of(&out, t, r, "kept B") == D / 2,
                       "tau %g keeps %g", tau, value_of(&out, t, r, "kept A"));
            if (r < TAUS)
                CHECK_THAT(both == D / 2 && iou == 1 && p10 < -50, "alike: %g shared, p 10^%g",
                           both, p10);
            else
                CHECK_THAT(both == 0 && iou == 0 && p10 > -0.01, "apart: %g shared, p 10^%g", both,
                           p10);
            CHECK_THAT(fabs(value_of(&out, t, r, "chance") - 1 / 3.0) < 1e-9, "chance");
        }
    }
    CHECK_THAT(rows == 3 * TAUS && tested == large && large > 0 && large < rows,
               "%d rows, %d of them large enough, %d tested", rows, large, tested);
    for (int k = 0; k < 3; k++) {
        free(s.vectors[k].v);
        free(s.vectors[k].scores);
    }
    s.t = NULL;
    clear_experiment(&s);
    free_report(&out);
}

static void test_sparse(void) {
    double most = 0;
    dice = 21;
    for (int round = 0; round < 12; round++)
        check_rules(round < 2 ? 3 : 20 + 23 * round, round);
    /* Exactly at the threshold a dimension stays, and a zero is never below it. */
    float v[8] = {1, -2, 4, 0.5f, -8, 0, 16, 0}, to[8];
    double effect[8] = {3, 6, -12, 1.5, 24, 0, 48, 5};
    effect[7] = 0;
    CHECK_THAT(steer_sparsify(v, effect, 8, 1, (steer_sparsity)4, 1, 1, to, NULL) == -1 &&
                   steer_sparsify(v, effect, 0, 1, STEER_BY_EFFECT, 1, 1, to, NULL) == -1,
               "an unknown rule, no dimensions");
    double no_number[8] = {3, 6, NAN};
    steer_error e = {0};
    CHECK_THAT(steer_sparsify(v, no_number, 8, 1, STEER_BY_EFFECT, 1, 1, to, &e) == -1 &&
                   e.code == STEER_ENONFINITE,
               "an effect that is no number: %s", e.text);
    CHECK_THAT(sparsely(v, effect, 8, 1, STEER_BY_GRADIENT, 1, 1, to) == 8 &&
                   !memcmp(v, to, sizeof v),
               "all are exactly at tau 1");
    CHECK_THAT(sparsely(v, effect, 8, 1.0000001, STEER_BY_GRADIENT, 1, 1, to) == 2 && to[4] == 0 &&
                   to[0] == 0,
               "all but the zeros are below tau 1.0000001");
    for (int i = 0; i < 8; i++)
        CHECK_THAT(to[i] == 0, "no dimension is left, and nothing is divided by 0: %g",
                   (double)to[i]);
    effect[1] = 5.99; /* now one is below; by magnitude the first of the smallest goes, a zero */
    CHECK_THAT(sparsely(v, effect, 8, 0.9999, STEER_BY_GRADIENT, 1, 0, to) == 7 && to[1] == 0 &&
                   to[0] == 1,
               "one is below");
    CHECK_THAT(sparsely(v, effect, 8, 0.9999, STEER_BY_MAGNITUDE, 1, 0, to) == 7 &&
                   !memcmp(v, to, sizeof v),
               "the smallest magnitude is a zero");
    float flat[6] = {1, 1, 1, 1, 1, 1}, left[6];
    double tied[6] = {1, 1, 1, 0.1, 0.1, 0.1};
    CHECK_THAT(sparsely(flat, tied, 6, 0.5, STEER_BY_MAGNITUDE, 1, 0, left) == 3 && left[0] == 0 &&
                   left[2] == 0 && left[3] == 1,
               "of equals the first go");

    for (int d = 1; d <= 11; d++)
        for (int n1 = 0; n1 <= d; n1++)
            for (int n2 = 0; n2 <= n1; n2++)
                for (int k = 0; k <= n2 + 1; k++) {
                    double got = chance_of_overlap(d, n1, n2, k),
                           off = fabs(got - counted_overlap(d, n1, n2, k));
                    most = fmax(most, isnan(off) ? INFINITY : off);
                    CHECK_THAT(off < 1e-12 && fabs(got - chance_of_overlap(d, n2, n1, k)) < 1e-12,
                               "%d of %d and %d share %d: %g", n1, d, n2, k, got);
                }
    for (int n1 = 1; n1 < 2304; n1 += 383) { /* as large as in the paper */
        double all = chance_of_overlap(2304, n1, 700, 0), below = 0;
        int mean = n1 * 700 / 2304;
        below = chance_of_overlap(2304, n1, 700, mean + 150);
        CHECK_THAT(fabs(all - 1) < 1e-9 && below < 1e-9 &&
                       fabs(chance_of_overlap(2304, n1, 700, mean) - 0.5) < 0.5 &&
                       fabs(chance_of_overlap(2304, 700, n1, mean) -
                            chance_of_overlap(2304, n1, 700, mean)) < 1e-9,
                   "%d of 2304 and 700: %g, %g", n1, all, below);
    }
    check_agreement();
    printf("  chance of an overlap: error %.2g\n", most);
}

/* ---------------------------------------------------------------- trained vectors */

/* The epoch chosen has the least loss (PO), or the least sum of the ranks of loss and match. */
static void check_chosen(const steer_epoch *log_of, int epochs, int chosen, int po,
                         const char *what) {
    double best = INFINITY, value[16];
    for (int i = 0; i < epochs; i++) {
        value[i] = po ? log_of[i].loss : 0;
        for (int j = 0; j < epochs && !po; j++)
            value[i] += (log_of[j].loss < log_of[i].loss) + (log_of[j].match > log_of[i].match);
        best = fmin(best, value[i]);
    }
    CHECK_THAT(chosen >= 0 && chosen < epochs && value[chosen] == best,
               "%s: epoch %d was chosen, value %g, not %g", what, chosen,
               chosen < 0 ? NAN : value[chosen], best);
}

/* Pairs whose wanted answers use the lower tokens for one sign, the upper for the other. */
static int make_toy(tracer *t, steer_pair *pairs, int n, int prompt, int answer) {
    int d = t->m->config.d, half = t->m->config.vocab / 2;
    steer_error e = {0};
    for (int i = 0; i < n; i++) {
        steer_pair *p = &pairs[i];
        *p = (steer_pair){.n_prompt = prompt + i % 2, .sign = i % 2 ? 1 : -1};
        int context[16] = {0};
        random_tokens(context, p->n_prompt, t->m->config.vocab);
        for (int k = 0; k < 2; k++) {
            p->n[k] = p->n_prompt + answer + k;
            int *tokens = malloc(sizeof(int) * (size_t)p->n[k]);
            p->tokens[k] = tokens;
            p->start[k] = malloc(sizeof(float) * (size_t)(p->n[k] * d));
            for (int j = 0; j < p->n[k]; j++)
                tokens[j] = j < p->n_prompt ? context[j] : roll(half) % 6 + (i % 2 == k) * half;
        }
        if (steer_pair_prepare(t, p, &(steer_training){0}, &e))
            return 0;
    }
    return 1;
}

static double mean_loss(tracer *t, const steer_pair *pairs, int n, const steer_training *how,
                        const float *v) {
    double sum = 0, one = 0, match;
    steer_error e = {0};
    for (int i = 0; i < n; i++) {
        CHECK_THAT(!pair_loss(t, &pairs[i], how, v, 1, &one, &match, NULL, &e), "%s", e.text);
        sum += one / n;
    }
    return sum;
}

/* Epochs whose loss is not finite are not chosen. */
static void check_best_epoch(void) {
    const steer_epoch record[] = {{NAN, 0.9}, {2, 0.5}, {1, 0.6}, {INFINITY, 1}};
    for (int po = 0; po < 2; po++) {
        CHECK_THAT(best_epoch(record, 4, po) == 2, "epoch %d of four", best_epoch(record, 4, po));
        CHECK_THAT(best_epoch(record, 1, po) == -1, "no epoch has a loss");
    }
}

static void test_training(void) {
    enum { PAIRS = 6, EPOCHS = 5 };

    check_best_epoch();

    for (int kind = 0; kind < FAMILIES; kind += 2)
        for (int po = 0; po < 2; po++) {
            steer_error e = {0};
            experiment s = {.m = family(kind), .e = &e};
            tracer *t = s.t = steer_tracer_new(s.m, 1, 16, 12, 1, &e);
            int d = s.m->config.d, best = 0;
            CHECK_THAT(t, "%s", e.text);
            steer_pair pairs[PAIRS];
            dice = 22;
            CHECK_THAT(make_toy(t, pairs, PAIRS, 4, 6), "pairs");
            steer_training how = standard_training, still;
            how.objective = po ? STEER_PO : STEER_NTP;
            how.epochs = EPOCHS;
            how.batch = 4;
            how.rate = 0.05;
            how.seed = 5;
            still = how;
            still.rate = 1e-30;
            still.epochs = 1; /* no step that a float could take */
            steer_epoch log_of[EPOCHS], again[EPOCHS];
            double norm = kind == 2 ? 6 : 3;
            float *v[4];
            for (int i = 0; i < 4; i++) { /* untrained; trained; the same again; another seed */
                v[i] = malloc(sizeof(float) * (size_t)d);
                how.seed = i == 3 ? 42 : 5;
                int chosen;
                CHECK_THAT(!steer_train(t, pairs, PAIRS, pairs, PAIRS, i ? &how : &still, norm,
                                        v[i], i == 1 ? log_of : again, &chosen, &e),
                           "%s", e.text);
                CHECK_THAT(chosen >= 0 && chosen < EPOCHS, "epoch %d", chosen);
                CHECK_THAT(fabs(norm_of(v[i], d) / norm - 1) < 1e-6, "norm %g, not %g",
                           norm_of(v[i], d), norm);
                if (i == 1)
                    best = chosen;
                if (i == 2)
                    CHECK_THAT(chosen == best && !memcmp(log_of, again, sizeof again),
                               "another epoch");
            }
            CHECK_THAT(!memcmp(v[1], v[2], sizeof(float) * (size_t)d),
                       "the same seed gives another vector");
            CHECK_THAT(memcmp(v[1], v[3], sizeof(float) * (size_t)d),
                       "another seed gives the same vector");
            double before = mean_loss(t, pairs, PAIRS, &how, v[0]),
                   after = mean_loss(t, pairs, PAIRS, &how, v[1]);
            CHECK_THAT(after < (po ? 0.8 : 0.97) * before, "%s, %s: loss %g, untrained %g",
                       family_names[kind], po ? "PO" : "NTP", after, before);
            CHECK_THAT(fabs(after / log_of[best].loss - 1) < 1e-5, "the loss on file is %g, not %g",
                       log_of[best].loss, after);
            check_chosen(log_of, EPOCHS, best, po, "the training pairs");
            /* On pairs half of which have the other sign, the last epoch need not be the best. */
            steer_pair other[PAIRS];
            for (int i = 0; i < PAIRS; i++) {
                other[i] = pairs[i];
                other[i].sign *= i < PAIRS / 2 ? -1 : 1;
            }
            for (how.seed = 1; how.seed < 5; how.seed++) {
                int chosen = -1;
                CHECK_THAT(!steer_train(t, pairs, PAIRS, other, PAIRS, &how, norm, v[3], again,
                                        &chosen, &e),
                           "%s", e.text);
                check_chosen(again, EPOCHS, chosen, po, "the opposite pairs");
            }
            steer_training wild = how; /* the first step goes beyond what a float can hold */
            wild.rate = 1e30;
            CHECK_THAT(steer_train(t, pairs, PAIRS, pairs, PAIRS, &wild, norm, v[3], again, &best,
                                   &e) == STEER_ENONFINITE,
                       "%s", e.text);
            /* What can't be trained on. */
            steer_pair bare = pairs[0], none = {0};
            bare.start[0] = NULL;
            steer_training backwards = how, unknown = how;
            backwards.epochs = -1;
            unknown.objective = (steer_objective)2;
            const steer_training *hows[] = {&how, &how, &how, &how, &backwards, &unknown, &how};
            const steer_pair *sets[] = {pairs, &bare, &none, pairs, pairs, pairs, pairs};
            int sizes[] = {0, 1, 1, PAIRS, PAIRS, PAIRS, PAIRS};
            double norms[] = {norm, norm, norm, 0, norm, norm, NAN};
            for (int i = 0; i < 7; i++)
                CHECK_THAT(steer_train(t, sets[i], sizes[i], pairs, PAIRS, hows[i], norms[i], v[3],
                                       again, &best, &e) == STEER_EARG,
                           "training %d: %s", i, e.text);
            CHECK_THAT(steer_pair_prepare(t, &bare, &how, &e) == STEER_EARG,
                       "no memory to prepare");
            bare = pairs[0];
            bare.n[0] = bare.n_prompt;
            CHECK_THAT(steer_pair_prepare(t, &bare, &how, &e) == STEER_EARG, "no response");
            int ids[16], last = pairs[0].n[0] - 1; /* prepared, and then given another last token */
            bare = pairs[0];
            memcpy(ids, bare.tokens[0], sizeof *ids * (size_t)bare.n[0]);
            bare.tokens[0] = ids;
            for (int bad = 0; bad < 2; bad++) {
                ids[last] = bad ? -1 : s.m->config.vocab;
                CHECK_THAT(steer_train(t, &bare, 1, pairs, PAIRS, &how, norm, v[3], again, &best,
                                       &e) == STEER_EARG &&
                               strstr(e.text, "token"),
                           "token %d: %s", ids[last], e.text);
            }
            printf("  %s, %s: loss %.3f of the untrained vector, %.3f trained\n",
                   family_names[kind], po ? "PO" : "NTP", before, after);
            for (int i = 0; i < 4; i++)
                free(v[i]);
            for (int i = 0; i < PAIRS; i++)
                for (int k = 0; k < 2; k++) {
                    free((void *)(uintptr_t)pairs[i].tokens[k]);
                    free(pairs[i].start[k]);
                }
            clear_experiment(&s);
        }
}

/* ---------------------------------------------------------------- what is refused */

/* Plans with a cut, in stream 1 of the tracer's context. */
static void check_refused_cuts(const traced *w, const unsigned char *cut) {
    const steer_edit add = {STEER_ADD, .layer = 1, .coeff = 1, .v = w->v};
    const steer_edit ablate = {STEER_ABLATE, .layer = 1, .v = w->v};
    const steer_edit cuts = {STEER_CUT, .layer = 1, .cut = cut};
    const steer_edit patterns = {STEER_FREEZE, .layer = 1, .what = STEER_QK};
    const steer_edit values = {STEER_FREEZE, .layer = 1, .what = STEER_V};
    const steer_edit images = {STEER_REMOVE, .layer = 1, .what = STEER_SVV};

    const struct {
        const char *what, *word;
        steer_plan plan;
        int twin;
        steer_status code;
    } tried[] = {
        {"a cut without a twin", "twin", PLAN(add, cuts), -1, STEER_EARG},
        {"a cut and frozen patterns", "edits something else", PLAN(add, patterns, cuts), 0,
         STEER_EARG},
        {"a cut and frozen values", "edits something else", PLAN(add, values, cuts), 0, STEER_EARG},
        {"a cut and a removal", "edits something else", PLAN(add, images, cuts), 0, STEER_EARG},
        {"a cut and an ablation", "edits something else", PLAN(ablate, cuts), 0, STEER_EARG},
        {"a cut in block 2", "not made for", PLAN(add, {STEER_CUT, .layer = 2, .cut = cut}), 0,
         STEER_EARG},
        {"a cut in block 0", "not made for", PLAN(add, {STEER_CUT, .layer = 0, .cut = cut}), 0,
         STEER_EARG},
        {"a right cut", "", PLAN(add, cuts), 0, STEER_OK},
        {"a cut alone: the twin may be the steered one", "", PLAN(cuts), 0, STEER_OK}};

    for (size_t i = 0; i < sizeof tried / sizeof *tried; i++) {
        steer_error e = {0};
        CHECK_THAT(!steer_begin(w->t->c, 0, NULL, -1, NULL, &e), "%s", e.text);
        steer_status s = steer_begin(w->t->c, 1, &tried[i].plan, tried[i].twin, NULL, &e);
        check_refusal(tried[i].what, s, tried[i].code, &e, tried[i].word);
    }
}

/* Contexts that have no room for a cut, or less than its rows need. */
static void check_room_for_cuts(const traced *w, const unsigned char *cut) {
    const steer_edit edits[] = {{STEER_ADD, .layer = 1, .coeff = 1, .v = w->v},
                                {STEER_CUT, .layer = 1, .cut = cut}};
    const steer_plan right = {edits, 2};
    steer_limits l = {.streams = 2, .positions = 16, .rows = 32, .cut_layer = 1};
    steer_error e = {0};
    steer_context *none = steer_context_new(w->m, &l, &e);
    l.cut_rows = 10;
    steer_context *some = steer_context_new(w->m, &l, &e);
    CHECK_THAT(none && some, "%s", e.text);
    if (none)
        check_refusal("a context without cut rows", steer_begin(none, 1, &right, 0, NULL, &e),
                      STEER_EARG, &e, "not made for");

    /* Ten rows with cuts fit, eleven do not; nor does a twin without its rows. */
    static const struct {
        const char *what, *word;
        int first, n; /* of the streams' rows */
        steer_status code;
    } tried[] = {{"ten rows", "", 0, 10, STEER_OK},
                 {"ten rows without the twin's", "twin", 1, 10, STEER_EARG},
                 {"eleven rows", "more than 10 rows", 0, 11, STEER_EARG},
                 {"eleven rows without the twin's", "twin", 1, 11, STEER_EARG}};

    for (size_t i = 0; some && i < sizeof tried / sizeof *tried; i++) {
        steer_row rows[22];
        int n = 0;
        for (int k = tried[i].first; k < 2; k++)
            for (int t = 0; t < tried[i].n; t++)
                rows[n++] = (steer_row){k, t, 1 + t, 0, 0};
        CHECK_THAT(!steer_begin(some, 0, NULL, -1, NULL, &e) &&
                       !steer_begin(some, 1, &right, 0, NULL, &e),
                   "%s", e.text);
        steer_status s = steer_run(some, rows, n, NULL, &e);
        check_refusal(tried[i].what, s, tried[i].code, &e, tried[i].word);
    }
    steer_context_free(none);
    steer_context_free(some);

    const steer_limits wrong[] = {
        {.streams = 2,
         .positions = 16,
         .rows = 32,
         .cut_layer = w->m->config.layers,
         .cut_rows = 10},
        {.streams = 2, .positions = 16, .rows = 32, .cut_layer = 1, .cut_rows = -1}};
    for (int i = 0; i < 2; i++)
        CHECK_THAT(!steer_context_new(w->m, &wrong[i], &e) && !steer_context_bytes(w->m, &wrong[i]),
                   "%s", i ? "less than no rows" : "a graph above the last block");
}

/* Examples that do not fit, each through everything that takes one; steps and metrics that are
 * none. */
static void check_refused_examples(traced *w, const unsigned char *cut, double *scores) {
    tracer *t = w->t;
    const steer_edit cuts = {STEER_CUT, .layer = 1, .cut = cut};
    const steer_edit late = {STEER_ADD, .layer = 1, .coeff = 1, .from = 1000, .v = w->v};
    const steer_plan cutting = {&cuts, 1}, never = {&late, 1};
    int tokens[14], foreign[14];
    float zero[512] = {0};
    double F, node[64], *edge = zeros(edge_places(&t->graph), sizeof *edge);
    steer_error e = {0};
    for (int i = 0; i < 14; i++)
        tokens[i] = foreign[i] = i + 1;
    foreign[5] = w->m->config.vocab;

    const struct {
        const char *what, *word;
        example x;
    } wrong[] = {{"too long", "does not fit", {tokens, 14, 11, 1, 1}},
                 {"no prompt", "does not fit", {tokens, 6, 0, 1, 1}},
                 {"too long an answer", "does not fit", {tokens, 10, 3, 1, 1}},
                 {"less than no prompt", "does not fit", {tokens, 3, -2, 1, 1}},
                 {"an end inside the prompt", "does not fit", {tokens, 4, 5, 1, 1}},
                 {"a token outside", "token", {foreign, 10, 7, 1, 1}}};

    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        const example *x = &wrong[i].x;
        const char *what = wrong[i].what, *word = wrong[i].word;
        steer_status s = attribute(t, x, w->v, STEER_LOGIT, 1, scores, &e);
        check_refusal(what, s, STEER_EARG, &e, word);
        s = steer_patch_exactly(t, x, w->v, node, edge, &e);
        check_refusal(what, s, STEER_EARG, &e, word);
        s = steer_faithfulness(t, x, w->v, &cutting, 1, &F, NULL, &e);
        check_refusal(what, s, STEER_EARG, &e, word);
    }

    const struct {
        const char *what, *word;
        const float *v;
        int metric, steps;
    } asked[] = {{"no steps", "steps", w->v, STEER_LOGIT, 0},
                 {"less than none", "steps", w->v, STEER_LOGIT, -3},
                 {"metric 7", "metric", w->v, 7, 2},
                 {"metric -1", "metric", w->v, -1, 2},
                 {"a vector that changes nothing", "zero", zero, STEER_LOGIT, 1}};

    for (size_t i = 0; i < sizeof asked / sizeof *asked; i++) {
        steer_status s =
            attribute(t, &w->x, asked[i].v, asked[i].metric, asked[i].steps, scores, &e);
        check_refusal(asked[i].what, s, STEER_EARG, &e, asked[i].word);
    }
    steer_status s = steer_faithfulness(t, &w->x, w->v, &never, 1, &F, NULL, &e);
    check_refusal("a vector that acts after the end", s, STEER_ENOHIT, &e, "");
    CHECK_THAT(!steer_tracer_new(w->m, 1, w->m->config.max_seq + 88, 4, 1, &e), "more positions");
    check_refusal("more positions than the model has", e.code, STEER_EARG, &e, "positions");
    free(edge);
}

/* Where both runs predict the same, there is nothing to patch, and it is said so. */
static void check_nothing_to_patch(traced *w, const unsigned char *cut, double *scores) {
    tracer *t = w->t;
    const steer_edit cuts = {STEER_CUT, .layer = 1, .cut = cut};
    const steer_plan cutting = {&cuts, 1};
    steer_error e = {0};
    double F, sum = 0;
    example same = w->x;
    same.coeff = 1e-6f;
    for (size_t i = 0; i < scores_width(t); i++)
        scores[i] = 7;
    CHECK_THAT(!attribute(t, &same, w->v, STEER_LOGIT, 2, scores, &e), "%s", e.text);
    for (size_t i = 0; i < scores_width(t); i++)
        sum += fabs(scores[i]);
    CHECK_THAT(scores[SCORE_POSITIONS] == 0 && sum == 0, "%g positions, %g in all",
               scores[SCORE_POSITIONS], sum);
    CHECK_THAT(!steer_faithfulness(t, &same, w->v, &cutting, 1, &F, NULL, &e) && isnan(F),
               "F of no effect is %g", F);
    CHECK_THAT(!attribute(t, &same, w->v, STEER_KL, 2, scores, &e) && scores[SCORE_POSITIONS] == 7,
               "the KL metric has all %g positions", scores[SCORE_POSITIONS]);
    steer_tracer_kl_min(t, 1e9);
    CHECK_THAT(!attribute(t, &w->x, w->v, STEER_KL, 2, scores, &e) && scores[SCORE_POSITIONS] == 0,
               "a KL of %g", t->kl_min);
    steer_tracer_kl_min(t, 0);
    CHECK_THAT(!attribute(t, &w->x, w->v, STEER_LOGIT, 2, scores, &e) &&
                   scores[SCORE_POSITIONS] > 0,
               "the vector itself");
}

static void test_patch_errors(void) {
    traced w = {0};
    steer_error e = {0};
    if (!open_traced(&w, 0, 10, 4, 2, 1))
        return;
    size_t cells = edge_places(&w.t->graph);
    unsigned char *cut = zeros(cells, 1), *kept = zeros(cells, 1);
    double *scores = zeros(scores_width(w.t), sizeof *scores);
    CHECK_THAT(!steer_circuit_cut(&w.t->graph, kept, 0, cut, &e), "%s", e.text);
    check_refused_cuts(&w, cut);
    check_room_for_cuts(&w, cut);
    check_refused_examples(&w, cut, scores);
    check_nothing_to_patch(&w, cut, scores);
    free(cut);
    free(kept);
    free(scores);
    close_traced(&w);
}
