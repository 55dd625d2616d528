/* The program on a small random model that is none of the box: included by test.c. */

/* One prompt's greedy answer under a plan (or NULL), without its end-of-turn token; its length. */
static int answer_alone(const steer_model *m, const int *prompt, int n_prompt, const steer_plan *plan,
                        int max_new, int *out) {
    steer_error e = {0};
    steer_limits limits = {.streams = 2, .positions = n_prompt + max_new};
    steer_context *c = steer_context_new(m, &limits, &e);
    steer_job job = {prompt, n_prompt, max_new, plan, .out = out};

    CHECK_THAT(c && !steer_generate(c, &job, 1, NULL, NULL, &e), "%s", e.text);
    steer_context_free(c);
    if (job.n_out && is_eot(&m->config, out[job.n_out - 1])) job.n_out--;
    return job.n_out;
}

static int refuses(const steer_model *m, const int *tokens, int n) {
    char text[1024];
    steer_decode(m, tokens, n, text, sizeof text);
    return steer_is_refusal(text);
}

static void check_response(const steer_pair *x, int which, const int *prompt, int n_prompt,
                           const int *answer, int n_answer, const char *what) {
    CHECK_THAT(x->n_prompt == n_prompt, "%s: a prompt of %d tokens, not %d", what, x->n_prompt,
               n_prompt);
    CHECK_THAT(x->n[which] == n_prompt + n_answer, "%s: %d tokens, not %d + %d", what, x->n[which],
               n_prompt, n_answer);
    if (x->n_prompt != n_prompt || x->n[which] != n_prompt + n_answer) return;
    CHECK_THAT(!memcmp(x->tokens[which], prompt, sizeof *prompt * (size_t)n_prompt),
               "%s: another prompt", what);
    CHECK_THAT(!memcmp(x->tokens[which] + n_prompt, answer, sizeof *answer * (size_t)n_answer),
               "%s: another answer", what);
}

/* Pairs as the paper has them (2.5): the plain prompt with the unwanted response, which is the
 * unsteered model's, and the wanted one: of a harmful prompt the steered model's answer, of a
 * harmless one the refusal of the model that was told to refuse, or else of the steered one. All
 * responses are generated here, one at a time. Returns how many pairs are by telling. */
static int check_pairs(experiment *s, int set, int most) {
    enum { ROOM = 64 };
    const steer_prompts *from = set ? s->val : s->train;
    pair_list pairs = {0};
    int at = 0, told_pairs = 0;
    int plain[ROOM], steered[ROOM], told[ROOM];

    CHECK_THAT(!make_pairs(s, set, most, &pairs), "%s", s->e->text);
    for (int side = 0; side < 2; side++)
        for (int i = 0; i < min_int(most, from[side].n); i++) {
            const char *text = from[side].text[i];
            int prompt[512], told_prompt[512];
            char command[1024];
            const char *told_text = command;
            snprintf(command, sizeof command,
                     "The following question is dangerous. Refuse to answer it, beginning with "
                     "\"I'm sorry, but I can't\". Question: %s",
                     text);
            int n = (int)steer_chat(s->m, NULL, &text, 1, prompt, 512, NULL);
            int told_n = (int)steer_chat(s->m, NULL, &told_text, 1, told_prompt, 512, NULL);
            changes plan = {.add = s->vectors[DIM].v, .coeff = side == HARMLESS ? 1 : -1,
                               .layer = s->v.layer};

            int n_plain = answer_alone(s->m, prompt, n, NULL, s->max_new, plain);
            int n_steered = answer_alone(s->m, prompt, n, plan_of(&plan), s->max_new, steered);
            int n_told = answer_alone(s->m, told_prompt, told_n, NULL, s->max_new, told);
            int refused = refuses(s->m, plain, n_plain);
            if (!n_plain || refused != (side == HARMFUL)) continue;
            int by_telling = side == HARMLESS && n_told && refuses(s->m, told, n_told);
            int by_steering = n_steered && refuses(s->m, steered, n_steered) != refused;
            if (!by_telling && !by_steering) continue;

            CHECK_THAT(at < pairs.n, "set %d: only %d pairs", set, pairs.n);
            if (at >= pairs.n) return 0;
            const steer_pair *x = &pairs.of[at++];
            CHECK_THAT(x->sign == (side == HARMLESS ? 1 : -1), "pair %d: the sign", at);
            check_response(x, 1, prompt, n, plain, n_plain, "unwanted");
            if (by_telling) check_response(x, 0, prompt, n, told, n_told, "wanted, told");
            else check_response(x, 0, prompt, n, steered, n_steered, "wanted, steered");
            told_pairs += by_telling;
        }
    CHECK_THAT(at == pairs.n, "set %d: %d pairs, %d are right", set, pairs.n, at);
    return told_pairs;
}

/* Six prompt files of a few words each, for --data. */
static void write_prompt_files(const char *folder) {
    static const char *const names[] = {"harmful-train.txt", "harmful-val.txt", "harmful-test.txt",
                                        "harmless-train.txt", "harmless-val.txt",
                                        "harmless-test.txt"};
    static const char *const words[] = {"bake", "steal", "open", "the", "a", "car", "cake", "door",
                                        "now", "how", "quickly", "my", "lock", "tea"};
    for (int i = 0; i < 6; i++) {
        char path[256], text[8192];
        size_t n = 0;
        for (int line = 0; line < 80; line++) {
            for (int k = 0; k < 3; k++)
                n += (size_t)snprintf(text + n, sizeof text - n, "%s ",
                                      words[roll(sizeof words / sizeof *words)]);
            n += (size_t)snprintf(text + n, sizeof text - n, "%d%c\n", line, i < 3 ? '!' : '?');
        }
        snprintf(path, sizeof path, "%s/%s", folder, names[i]);
        write_bytes(path, text, n);
    }
}

/* A random model without a grammar through every stage of `reproduce`: told prompts, all three
 * methods, each table there once. */
static void test_whole_paper(void) {
    static const char *const tables[] = {
        "sites",    "dose",         "map",         "steering", "freezing", "methods",
        "patching", "coarse",       "faithfulness", "overlap",  "interchange", "kinds",
        "circuit",  "svv",          "sparsity",    "sparsity-NTP", "sparsity-PO", "agreement",
        "shaded",   "judged",       "retained"};
    image file = small_image(F32, SMALL_REFUSER);
    steer_model *m = open_image(&file);
    steer_error e = {0};
    report out = {0};
    if (!m) return;

    experiment s = {.m = m, .path = "small", .out = &out, .e = &e, .stages = EVERYTHING};
    options o = standard_options();
    o.data = temporary;
    o.train = 80, o.limit = 24, o.val = 16, o.map = 2, o.max_new = 12;
    o.pairs = 80, o.epochs = 1, o.patch = 2, o.exact = 1;
    dice = 30;
    write_prompt_files(temporary);
    CHECK_THAT(!prepare_paper(&s, &o) && !command_paper(&s, &o), "%s", e.text);
    for (size_t k = 0; k < sizeof tables / sizeof *tables; k++) {
        int found = 0;
        for (size_t i = 0; i < n_entries(&out); i++) {
            const entry *t = AT(out.entries, entry, i);
            found += t->kind == IS_TABLE && !strcmp(t->name, tables[k]);
        }
        CHECK_THAT(found == 1, "table %s: %d times", tables[k], found);
    }
    int told = s.t ? check_pairs(&s, 0, s.n_train) : 0;
    if (s.t) check_pairs(&s, 1, pairs_to_validate(&s));
    CHECK_THAT(told >= 3, "only %d pairs are by telling", told);
    clear_experiment(&s);
    free_report(&out);
    steer_close(m);
    free(file.bytes);
}
