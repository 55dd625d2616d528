/* Included by test.c: arguments that a caller of the library can give by mistake. tests/fuzz.c
 * tries many more; these are the ones that once went wrong. */
static void test_odd_arguments(void) {
    image f = small_image(F32, 0);
    steer_model *m = open_image(&f);
    steer_error e = {0};
    int vocab = m->config.vocab, ids[] = {-1, 't', vocab, INT_MAX, 'h', INT_MIN, 'e'}, tokens[64];
    char text[16];
    size_t n = steer_decode(m, ids, 7, text, sizeof text);
    CHECK_THAT(n == 3 && !strcmp(text, "the"), "ids outside the vocabulary: %zu bytes, %s", n, text);
    static const int turns[] = {-1, -2, INT_MIN};
    for (int i = 0; i < 3; i++) {
        memset(&e, 0, sizeof e);
        long count = steer_chat(m, NULL, NULL, turns[i], tokens, 64, &e);
        CHECK_THAT(count == -1 && e.code == STEER_EARG && strstr(e.text, "turns"), "%d turns: %ld",
                   turns[i], count);
    }
    static const int layers[] = {-1, 2, INT_MAX, INT_MIN};
    for (int i = 0; i < 4; i++) {
        steer_graph g = steer_graph_of(m, layers[i]);
        CHECK_THAT(!g.nodes && !g.slots && !g.edges, "a graph from block %d", layers[i]);
    }

    /* Logits are those of the last run's rows that wanted them, and of no other. */
    steer_limits l = {.positions = 8, .rows = 4};
    steer_context *c = steer_context_new(m, &l, &e);
    steer_row rows[2] = {{.token = 't', .logits = 1}, {.token = 'h', .pos = 1}};
    CHECK_THAT(!steer_logits(c, 0), "logits before any run");
    CHECK_THAT(!steer_run(c, rows, 2, NULL, &e), "%s", e.text);
    static const int none[] = {1, 2, 3, 4, -1, INT_MAX, INT_MIN};
    CHECK_THAT(steer_logits(c, 0) != NULL, "no logits of row 0");
    for (int i = 0; i < 7; i++) CHECK_THAT(!steer_logits(c, none[i]), "logits of row %d", none[i]);
    CHECK_THAT(steer_run(c, rows, 2, NULL, &e) == STEER_EARG && !steer_logits(c, 0),
               "logits of a run that was refused");
    steer_context_free(c);

    /* Examples whose sizes overflow. */
    steer_tracer *t = steer_tracer_new(m, 1, 8, 4, 1, &e);
    double *scores = zeros(scores_width(t), sizeof *scores), F;
    static const int sizes[][2] = {{INT_MAX, 1}, {INT_MIN, 1}, {8, INT_MIN}, {8, INT_MAX},
                                   {INT_MIN, INT_MIN}, {INT_MIN, INT_MAX}, {0, 0}, {-1, -1}};
    float *v = zeros((size_t)m->config.d, sizeof *v);
    v[0] = 1;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        steer_example x = {tokens, sizes[i][0], sizes[i][1], 1, 1};
        steer_plan plan = {0};
        CHECK_THAT(attribute(t, &x, v, STEER_LOGIT, 1, scores, &e) == STEER_EARG,
                   "%d tokens, %d of prompt are attributed", x.n, x.n_prompt);
        CHECK_THAT(steer_faithfulness(t, &x, v, &plan, 1, &F, &e) == STEER_EARG,
                   "%d tokens, %d of prompt are judged", x.n, x.n_prompt);
    }
    free(scores), free(v);
    steer_tracer_free(t), steer_close(m), free(f.bytes);
}
