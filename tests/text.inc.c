/* Texts: the tokenizer, templates, prompts, the judging of answers. */

/* -------------------------------------------------------------- against the tokenizers library */

/* Token ids of texts under both pre-tokenizer rules, and of the template around texts. */
static void test_golden_tokens(void) {
    enum { CAP = 1 << 16 };

    golden_lines file = open_golden("tests/golden/tokens.txt");
    char *text = malloc(CAP);
    int *ids = malloc(sizeof *ids * CAP), *expected = malloc(sizeof *ids * CAP), cases = 0,
        chat = 0;
    size_t n = 0;
    steer_error e = {0};
    steer_model *m = open_or_fail("weights/tiny-llama.bin");
    steer_config *config = (steer_config *)(m ? steer_model_config(m) : NULL);
    while (golden_line(&file)) {
        const char *word = file.word, *rest = file.rest;
        if (!m)
            continue;
        if (!strcmp(word, "rule"))
            config->pretok = atoi(rest);
        if (!strcmp(word, "text") || !strcmp(word, "chat")) {
            chat = *word == 'c';
            n = parse_hex(rest + 1, text, CAP - 1);
            text[n] = 0;
        }
        if (strcmp(word, "ids"))
            continue;
        long count = parse_ints(rest, expected, CAP);
        const char *turn = text;
        long got = chat ? steer_chat(m, NULL, &turn, 1, ids, CAP, &e)
                        : steer_encode(m, text, n, ids, CAP, &e);
        CHECK_THAT(got == count && !memcmp(ids, expected, sizeof *ids * (size_t)count),
                   "rule %d, %s \"%.60s\": %ld tokens, %ld expected", config->pretok,
                   chat ? "chat" : "text", text, got, count);
        cases++;
    }
    CHECK_THAT(cases > 0, "no cases");
    free(text);
    free(ids);
    free(expected);
    steer_close(m);
}

static void test_golden_split(void) {
    enum { CAP = 1 << 16 };

    golden_lines file = open_golden("tests/golden/split.txt");
    char *text = malloc(CAP);
    int *expected = malloc(sizeof *expected * CAP), cases = 0;
    size_t n = 0;
    steer_model *m = open_or_fail("weights/tiny-llama.bin");
    steer_config *config = (steer_config *)(m ? steer_model_config(m) : NULL);
    lookup classes = m ? m->unicode : (lookup){0}, letters = classes; /* where marks are some */
    uint32_t *copy = malloc(12 * (size_t)classes.n + 1);
    letters.at = classes.n ? memcpy(copy, classes.at, 12 * (size_t)classes.n) : NULL;
    for (uint32_t i = 2; i < 3 * classes.n; i += 3)
        if (copy[i] == MARK)
            copy[i] = LETTER;
    while (golden_line(&file)) {
        if (!strcmp(file.word, "text"))
            n = parse_hex(file.rest + 1, text, CAP - 1);
        int marks = !strcmp(file.word, "marks");
        if (!m || (!marks && strncmp(file.word, "rule", 4)))
            continue;
        config->pretok = marks ? QWEN2_RULE : file.word[4] - '0';
        m->unicode = marks ? letters : classes;
        int pieces = parse_ints(file.rest, expected, CAP), i = 0;
        const char *s = text, *end = text + n;
        for (; s < end && i < pieces; i++) {
            size_t length = pretoken(m, s, end);
            if (length != (size_t)expected[i])
                break;
            s += length;
        }
        CHECK_THAT(i == pieces && s == end, "%s, \"%.*s\": piece %d of %d", file.word,
                   (int)(n < 60 ? n : 60), text, i, pieces);
        cases++;
    }
    CHECK_THAT(cases > 1600, "%d cases", cases);
    free(text);
    free(copy);
    free(expected);
    steer_close(m);
}

/* Tokenizers of SentencePiece and of whole words, each in a model file that the lines hold. */
static void test_golden_pieces(void) {
    enum { CAP = 1 << 18 };

    FILE *f = fopen("tests/golden/pieces.txt", "r");
    char *line = NULL, *text = malloc(CAP), *bytes = malloc(CAP), name[32] = "";
    int *ids = malloc(sizeof *ids * CAP), *expected = malloc(sizeof *ids * CAP), cases = 0;
    size_t size = 0, n = 0;
    steer_error e = {0};
    steer_model *m = NULL;
    CHECK_THAT(f, "tests/golden/pieces.txt is missing");
    while (f && getline(&line, &size, f) > 0) {
        char word[32], *rest = after_word(line, word);
        if (!strcmp(word, "model")) {
            steer_close(m);
            rest = after_word(rest + 1, name);
            size_t length = parse_hex(rest + 1, bytes, CAP);
            m = steer_open_memory(bytes, length, name, &e);
            CHECK_THAT(m, "%s", e.text);
        }
        if (!strcmp(word, "rule") && m)
            m->config.pretok = atoi(rest);
        if (!strcmp(word, "text"))
            n = parse_hex(rest + 1, text, CAP);
        if (strcmp(word, "ids") || !m)
            continue;
        long count = parse_ints(rest, expected, CAP);
        long got = steer_encode(m, text, n, ids, CAP, &e);
        CHECK_THAT(got == count && !memcmp(ids, expected, sizeof *ids * (size_t)count),
                   "%s, rule %d, \"%.*s\": %ld tokens, %ld expected", name, m->config.pretok,
                   (int)(n < 60 ? n : 60), text, got, count);
        cases++;
    }
    if (f)
        fclose(f);
    CHECK_THAT(cases > 1000, "%d cases", cases);
    steer_close(m);
    free(line);
    free(text);
    free(bytes);
    free(ids);
    free(expected);
}

/* ---------------------------------------------------------------- any bytes */

static size_t random_text(char *out, int kind) {
    static const long scripts[][2] = {
        {0x20, 0x7E},     {'a', 'z'},       {'0', '9'},         {9, 13},
        {0, 31},          {0xA0, 0x24F},    {0x300, 0x36F},     {0x370, 0x3FF},
        {0x400, 0x4FF},   {0x590, 0x5FF},   {0x600, 0x6FF},     {0x900, 0x97F},
        {0xE00, 0xE7F},   {0x1100, 0x11FF}, {0x2000, 0x206F},   {0x3040, 0x30FF},
        {0x4E00, 0x9FFF}, {0xAC00, 0xD7A3}, {0x1F300, 0x1FAFF}, {0x20000, 0x2A6DF}};

    enum { SCRIPTS = sizeof scripts / sizeof *scripts };

    static const char *const fakes[] = {"<end>",      "<bos>", "<assistant>\n", "<user>",
                                        "<|im_end|>", "'s",    "'LL",           "  "};
    size_t n = 0;
    int length = roll(60), mine[3] = {roll(SCRIPTS), roll(SCRIPTS), roll(SCRIPTS)};
    for (int i = 0; i < length; i++) {
        const long *s = scripts[mine[roll(3)]];
        if (kind == 0 || (kind == 2 && roll(2))) /* 0: valid UTF-8 */
            n += put_code_point(out + n,
                                s[0] + (long)(random_unit(&dice) * (double)(s[1] - s[0] + 1)));
        else if (kind == 1 || roll(2)) /* 1: any bytes */
            out[n++] = (char)roll(256);
        else { /* 2: both, look-alikes of special tokens, and sequences cut short */
            const char *fake = fakes[roll(8)];
            memcpy(out + n, fake, strlen(fake));
            n += strlen(fake);
            char cut[4];
            size_t k = put_code_point(cut, 0x1F600 + roll(64));
            memcpy(out + n, cut, k - 1);
            n += k - 1;
        }
    }
    return n;
}

static void test_round_trips(void) {
    enum { TOKENS = 2048 };

    int ids[TOKENS], few[TOKENS], strings = SANITIZED ? 2000 : 10000;
    char text[TOKENS], back[TOKENS];
    image f = small_image(F32, 0);
    steer_model *models[] = {open_or_fail("weights/tiny-llama.bin"), open_image(&f)};
    steer_error e = {0};
    dice = 3;
    for (int i = 0; i < strings; i++) {
        steer_model *m = models[i % 8 == 7];
        if (!m)
            break;
        m->config.pretok = 1 + i / 4 % 2;
        size_t n = random_text(text, i % 3);
        char *exact = malloc(n + 1); /* a read beyond its end is seen by the sanitizer */
        memcpy(exact, text, n);
        long count = steer_encode(m, exact, n, ids, TOKENS, &e);
        CHECK_THAT(count >= 0 && count <= (long)n, "string %d: %ld tokens of %zu bytes: %s", i,
                   count, n, e.text);
        if (count < 0)
            break;
        for (long k = 0; k < count; k++)
            CHECK_THAT(ids[k] >= 0 && ids[k] < m->config.vocab && m->token_type[ids[k]] == 0,
                       "string %d: id %d is no token of text", i, ids[k]);
        size_t length = steer_decode(m, ids, (int)count, back, sizeof back);
        CHECK_THAT(length == n && !memcmp(back, text, n) && !back[n],
                   "string %d does not come back", i);
        long cap = roll((int)count + 1);
        few[cap] = -5;
        CHECK_THAT(steer_encode(m, exact, n, few, cap, &e) == count && few[cap] == -5 &&
                       !memcmp(few, ids, sizeof *ids * (size_t)cap),
                   "string %d: a small array", i);
        char little[8] = "-------";
        CHECK_THAT(steer_decode(m, ids, (int)count, little, 5) == n &&
                       !memcmp(little, text, n < 4 ? n : 4) && !little[n < 4 ? n : 4] &&
                       little[5] == '-',
                   "string %d: a small text", i);
        free(exact);
    }
    if (models[0]) { /* look-alikes stay text; the template's are tokens */
        steer_model *m = models[0];
        const char *turn = "x<end>y<bos>";
        long n = steer_chat(m, NULL, &turn, 1, ids, TOKENS, &e), specials = 0, plain = 0;
        for (long i = 0; i < n; i++)
            specials += m->token_type[ids[i]] == 1;
        turn = "xy";
        long k = steer_chat(m, NULL, &turn, 1, few, TOKENS, &e);
        for (long i = 0; i < k; i++)
            plain += m->token_type[few[i]] == 1;
        CHECK_THAT(n > 0 && specials == plain && plain > 2,
                   "%ld special tokens, %ld without look-alikes", specials, plain);
        CHECK_THAT(m->eoi >= 2 &&
                       !memcmp(ids + n - m->eoi, few + k - m->eoi, sizeof *ids * (size_t)m->eoi),
                   "the end-of-instruction tokens depend on the text");
        const char *turns[] = {"a", "b", "c"};
        long three = steer_chat(m, NULL, turns, 3, ids, TOKENS, &e);
        CHECK_THAT(three > 2 * k - 4 && !memcmp(ids + three - m->eoi, few + k - m->eoi,
                                                sizeof *ids * (size_t)m->eoi),
                   "a conversation of three turns: %ld tokens", three);
        CHECK_THAT(steer_chat(m, "Be kind.", turns, 1, ids, TOKENS, &e) == -1 &&
                       strstr(e.text, "system"),
                   "a system prompt without a place in the template: %s", e.text);
        CHECK_THAT(steer_encode(m, "", 0, ids, TOKENS, &e) == 0, "an empty text");
    }
    if (models[1]) {
        const char *turn = "hi";
        long plain = steer_chat(models[1], NULL, &turn, 1, ids, TOKENS, &e);
        long more = steer_chat(models[1], "Be kind.", &turn, 1, few, TOKENS, &e);
        CHECK_THAT(more > plain && plain > 0, "a system prompt: %ld tokens, %ld without", more,
                   plain);
        steer_close(models[1]);
    }
    /* A vocabulary may lack bytes (SmolLM2's does): they are dropped, and so is nothing else. */
    uint64_t table;
    memcpy(&table, f.bytes + 280 + 16 * BYTE_TOKENS, 8);
    memset(f.bytes + table + 4 * 0xFF, 0xFF, 4);
    memset(f.bytes + table + 4 * '#', 0xFF, 4);
    seal(&f);
    models[1] = open_image(&f);
    if (models[1]) {
        long count = steer_encode(models[1],
                                  "\xFF"
                                  "a#b##\xFF",
                                  7, ids, TOKENS, &e);
        CHECK_THAT(count == 2 && ids[0] == 'a' && ids[1] == 'b',
                   "bytes without a token: %ld tokens", count);
        CHECK_THAT(steer_encode(models[1], "#\xFF", 2, ids, TOKENS, &e) == 0,
                   "nothing but bytes without a token");
    }
    steer_close(models[0]);
    steer_close(models[1]);
    free(f.bytes);
}

/* Of this thread: what else the machine does is not counted. */
static double processor_seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Processor seconds to tokenize n bytes: `unit` again and again. */
static double time_encode(const steer_model *m, const char *unit, size_t n, int *ids) {
    char *text = malloc(n + 64);
    for (size_t at = 0, k = strlen(unit); at < n; at += k)
        memcpy(text + at, unit, k);
    steer_error e = {0};
    double started = processor_seconds();
    long count = steer_encode(m, text, n, ids, (long)n, &e);
    started = processor_seconds() - started;
    CHECK_THAT(count > 0 && count <= (long)n, "%s", e.text);
    free(text);
    return started;
}

static void test_linear_time(void) {
    static const struct {
        const char *name, *unit;
    } texts[] = {{"one letter", "a"},
                 {"spaces", " "},
                 {"newlines", "\n"},
                 {"digits", "7"},
                 {"quotes", "'"},
                 {"sentences", "Sure! Here is how to bake a cake. First, gather 12 eggs.\n"},
                 {"pairs", "ab"},
                 {"Chinese", "\xE4\xBD\xA0\xE5\xA5\xBD"},
                 {"no UTF-8", "\xFF\xC3"},
                 {"space, newline", " \n"},
                 {"unsorted marks", "\xCC\x81\xCC\xA3"},
                 {"Hangul", "\xED\x95\x9C"}};

    size_t small = SANITIZED ? 1 << 13 : 1 << 16, large = 16 * small;
    int *ids = malloc(sizeof *ids * large);
    image f = small_image(F32, SMALL_NFC);
    steer_model *models[] = {open_or_fail("weights/tiny-llama.bin"), open_image(&f)};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        for (int rule = 1; rule <= 3; rule++) { /* 3: Qwen's with normalisation */
            steer_model *m = models[rule == 3];
            if (!m)
                continue;
            m->config.pretok = rule == 1 ? 1 : 2;
            double once = 1e9, quarter = 1e9;
            for (int k = 0; k < 3; k++) {
                quarter = fmin(quarter, time_encode(m, texts[i].unit, small / 4, ids));
                once = fmin(once, time_encode(m, texts[i].unit, small, ids));
            }
            /* Four times the text, at most 9 times the time; a square would be 16 times. */
            CHECK_THAT(once < 9 * quarter + 0.01,
                       "%s, rule %d: %.4f s for %zu bytes, %.4f s for %zu", texts[i].name, rule,
                       quarter, small / 4, once, small);
            if (once >= 9 * quarter + 0.01)
                continue;
            double much = time_encode(m, texts[i].unit, large, ids);
            CHECK_THAT(much < 48 * once + 0.05 && much < 10,
                       "%s, rule %d: %.4f s for %zu bytes, %.3f s for %zu", texts[i].name, rule,
                       once, small, much, large);
        }
    free(ids);
    free(f.bytes);
    steer_close(models[0]);
    steer_close(models[1]);
}

/* ---------------------------------------------------------------- templates */

static int same_chat(const steer_model *m, const char *system, const char *const *turns, int n,
                     const int *expected, long count) {
    int ids[512];
    return steer_chat(m, system, turns, n, ids, 512, NULL) == count && count > 0 &&
           !memcmp(ids, expected, sizeof *ids * (size_t)count);
}

/* What a template says beside its strings: a system turn without a text, earlier answers without
 * their thinking, blanks of other scripts, a beginning of its own for the answer to come. */
static void test_template_switches(void) {
    steer_model *m = open_or_fail("weights/tiny-llama.bin");
    if (!m)
        return;
    const char *turns[] = {"\xC2\xA0 Hello\x1C\xE3\x80\x80\n",
                           "<think>no</think>yes</think>\n\nSure", "Go"};
    const char *clean[] = {"Hello", "Sure", "Go"}, *kept[] = {clean[0], turns[1], clean[2]};
    int with[512], without[512];
    m->config.trim = 0;
    m->piece[SYSTEM_PRE] = "<user>";
    m->piece[SYSTEM_POST] = "<end>";
    m->piece[SYSTEM] = "";
    long n = steer_chat(m, "x", clean, 3, with, 512, NULL);
    long k = steer_chat(m, NULL, clean, 3, without, 512, NULL);
    CHECK_THAT(n == k + 3 && !same_chat(m, NULL, kept, 3, without, k), "%ld tokens, %ld", n, k);
    m->config.drop_thinking = 1;
    m->config.trim = TRIM_ANSWERS;
    const char *answer[] = {"Hello", " Sure\n", "Go"}, *question[] = {"Hello ", "Sure", "Go"};
    CHECK_THAT(same_chat(m, NULL, answer, 3, without, k), "an answer, trimmed");
    CHECK_THAT(!same_chat(m, NULL, question, 3, without, k), "a question is not");
    m->config.trim = TRIM_ALL;
    CHECK_THAT(same_chat(m, NULL, turns, 3, without, k), "trimmed, the thinking dropped");
    m->config.system_always = 1;
    CHECK_THAT(same_chat(m, "x", turns, 3, with, n), "a system turn with a text");
    CHECK_THAT(steer_chat(m, NULL, turns, 3, without, 512, NULL) == n - 1 &&
                   !memcmp(with, without, 2 * sizeof *with),
               "a system turn without one");
    m->config.system_always = 0;
    m->piece[SYSTEM_PRE] = "";
    CHECK_THAT(steer_chat(m, "x", turns, 3, with, 512, NULL) == n - 1 &&
                   steer_chat(m, NULL, turns, 3, without, 512, NULL) == k,
               "a system prompt with a text behind it alone");
    n--;
    m->piece[ANSWER_PRE] = "Sure";
    CHECK_THAT(!same_chat(m, "x", turns, 3, with, n), "another beginning of the answer");
    steer_close(m);
}

/* What `steer info` says of a model: the network as its switches, the template with its tokens,
 * what ends an answer and begins a refusal, the memory of a run. */
static void test_info(void) {
    static const char *const said[] = {
        "  6 blocks, d 128, 4 heads, 2 kv heads of 32, MLP 352 (GeGLU), context 512\n",
        "embeddings (tied), as bf16\n",
        "  q, k, v biases no, QK-norm no, post-norms yes, norm gain 1 + w, soft-caps 50 and 30\n",
        "  embeddings times 11.3137, queries times 0.176777, angles a position 1 to 0.000177828\n",
        "  window 48 in the first 1 of every 2 blocks\n",
        "GPT-2's rule with single digits, 1787 merges, 5 special tokens, 0 matched in texts\n",
        "    start                     \"<bos>\"\n",
        "    behind a question         \"<end>\\n\"\n",
        "    before the answer to come \"<assistant>\\n\"\n",
        "begins with \"Hi\": 0 \"<bos>\", 1 \"<user>\", 203 \"\\n\", 540 \"Hi\", 3 \"<end>\", 203 ",
        "  end-of-instruction positions -4 to -1\n",
        "  an answer ends with 3 \"<end>\"\n",
        "  refusals begin with 45 \"I\", 663 \"Sorry\"\n",
        "  reported site: block 1, position -4, coefficient 1\n",
        "  a run of  128 tokens: ",
        "  a run of  512 tokens: "};
    CHECK_THAT(!run_program(PROGRAM, "info weights/tiny-gemma.bin", ""), "%s", complained);
    for (size_t i = 0; i < sizeof said / sizeof *said; i++)
        CHECK_THAT(strstr(shown, said[i]), "\"%s\" is not in \"%s\"", said[i], shown);

    /* Another model, other switches. */
    static const char *const other[] = {"(SwiGLU)", "post-norms no", "  no window\n",
                                        "soft-caps 0 and 0", "  an answer ends with "};
    CHECK_THAT(!run_program(PROGRAM, "info weights/tiny-llama.bin", ""), "%s", complained);
    for (size_t i = 0; i < sizeof other / sizeof *other; i++)
        CHECK_THAT(strstr(shown, other[i]), "\"%s\" is not in \"%s\"", other[i], shown);
}

/* ---------------------------------------------------------------- normal form */

static void check_normal(const steer_model *m, const char *text, const char *expected) {
    size_t n;
    char *out = normalise(m, text, strlen(text), &n);
    CHECK_THAT(out && n == strlen(expected) && !memcmp(out, expected, n),
               "\"%s\" becomes \"%.*s\", not \"%s\"", text, out ? (int)n : 0, out ? out : "",
               expected);
    free(out);
}

static void encode_angstrom(void *model) {
    int ids[64];
    steer_encode(model, "\xE2\x84\xAB!", 4, ids, 64, NULL);
}

static void test_normal_form(void) {
    image f = small_image(F32, SMALL_NFC);
    steer_model *m = open_image(&f);
    if (!m)
        return;
    check_normal(m, "", "");
    check_normal(m, "plain text", "plain text");
    check_normal(m, "e\xCC\x81", "\xC3\xA9");    /* e + acute */
    check_normal(m, "\xC3\xA9", "\xC3\xA9");     /* stays */
    check_normal(m, "\xE2\x84\xAB", "\xC3\x85"); /* the Angstrom sign: two steps down, one up */
    check_normal(m, "d\xCC\x87\xCC\xA3",
                 "\xE1\xB8\x8E"); /* marks change places, then both compose */
    check_normal(m, "q\xCC\x87\xCC\xA3", "q\xCC\xA3\xCC\x87"); /* change places only */
    check_normal(m, "q\xCC\x81\xCC\x80",
                 "q\xCC\x81\xCC\x80"); /* same class: they keep their order */
    check_normal(m, "e\xCC\xA7\xCC\x81", "\xC3\xA9\xCC\xA7");  /* a mark between does not block */
    check_normal(m, "e\xCC\x80\xCC\x81", "e\xCC\x80\xCC\x81"); /* one of the same class does */
    check_normal(m, "ex\xCC\x81", "ex\xCC\x81");
    check_normal(m,
                 "\xCC\x81"
                 "e",
                 "\xCC\x81"
                 "e");                                   /* a mark without a starter */
    check_normal(m, "\xCD\x84", "\xCC\x88\xCC\x81");     /* decomposes and does not compose */
    check_normal(m, "\xEF\xAC\x9D", "\xD7\x99\xD6\xB4"); /* an excluded composite */
    check_normal(m, "\xE1\x84\x92\xE1\x85\xA1\xE1\x86\xAB", "\xED\x95\x9C"); /* Hangul L V T */
    check_normal(m, "\xED\x95\x98\xE1\x86\xAB", "\xED\x95\x9C");             /* LV + T */
    check_normal(m, "\xED\x95\x9C\xE1\x86\xAB", "\xED\x95\x9C\xE1\x86\xAB"); /* LVT + T stays */
    check_normal(m, "e\xFF\xCC\x81", "e\xFF\xCC\x81"); /* a byte that is no UTF-8 between */
    check_normal(m, "\xCC", "\xCC");
    char text[1024], once[1024];
    dice = 4;
    for (int i = 0; i < 2000; i++) { /* normal text stays as it is, and tokens give it back */
        size_t n = random_text(text, i % 3), k, again;
        char *a = normalise(m, text, n, &k), *b = a ? normalise(m, a, k, &again) : NULL;
        CHECK_THAT(a && b && k == again && !memcmp(a, b, k),
                   "string %d is not normal after normalising", i);
        int ids[1024];
        long count = steer_encode(m, text, n, ids, 1024, NULL);
        CHECK_THAT(count >= 0 && steer_decode(m, ids, (int)count, once, sizeof once) == k &&
                       !memcmp(once, a, k),
                   "string %d: its tokens are not its normal form", i);
        free(a);
        free(b);
    }
    steer_close(m);
    /* A table in which code points decompose into each other: refused, or an end all the same. */
    uint32_t loop[] = {0x212B, 0xC5, 0, 0xC5, 0x212B, 0};
    for (size_t i = f.sections; i + 12 <= f.data; i += 4) {
        static const uint32_t ring[] = {0xC5, 'A', 0x30A}, sign[] = {0x212B, 0xC5, 0};
        if (!memcmp(f.bytes + i, ring, 12))
            memcpy(f.bytes + i, loop + 3, 12);
        if (!memcmp(f.bytes + i, sign, 12))
            memcpy(f.bytes + i, loop, 12);
    }
    seal(&f);
    m = steer_open_memory(f.bytes, f.size, "small", NULL);
    const char *why = m ? in_child(encode_angstrom, m, 5) : NULL;
    CHECK_THAT(!why, "a circle of decompositions: %s", why);
    steer_close(m);
    free(f.bytes);
}

/* ---------------------------------------------------------------- prompts and judging */

static steer_status load_text(steer_prompts *p, const steer_model *m, const char *text, size_t n,
                              int limit, steer_error *e) {
    const char *path = in_temporary("prompts.txt");
    write_bytes(path, text, n);
    memset(e, 0, sizeof *e);
    /* From memory it is the same, and so is every error, but for the name. */
    steer_prompts own;
    steer_error said = {0};
    steer_status other = steer_prompts_load_memory(&own, m, text, n, path, limit, &said);
    steer_status s = steer_prompts_load(p, m, path, limit, e);
    CHECK_THAT(other == s && said.code == s && !strcmp(said.text, e->text) && own.n == p->n,
               "from memory: %d prompts, \"%s\"; from a file: %d, \"%s\"", own.n, said.text, p->n,
               e->text);
    for (int i = 0; i < own.n && own.n == p->n; i++)
        CHECK_THAT(!strcmp(own.text[i], p->text[i]) && own.lengths[i] == p->lengths[i], "prompt %d",
                   i);
    steer_prompts_free(&own);
    return s;
}

/* Prompts one by one: as from a file; one that fails leaves the others. */
static void check_added_prompts(const steer_model *m) {
    steer_error e = {0};
    steer_prompts p = {0}, q = {0};
    char text[16], all[512] = "", *huge = malloc(10000);
    for (int i = 0; i < 9; i++) {
        snprintf(text, sizeof text, "a thing %d", i);
        sprintf(all + strlen(all), "%s%s\n", text, i % 2 ? "\tthe task" : "");
        CHECK_THAT(!steer_prompts_add(&p, m, NULL, text, NULL, i % 2 ? "the task" : NULL, &e), "%s",
                   e.text);
    }
    memset(huge, 'a', 9999);
    huge[9999] = 0;
    CHECK_THAT(steer_prompts_add(&p, m, NULL, huge, NULL, NULL, &e) == STEER_EARG && p.n == 9 &&
                   steer_prompts_add(&p, m, NULL, huge, NULL, NULL, NULL) == STEER_EARG,
               "a prompt that is too long: %s", e.text);
    CHECK_THAT(!load_text(&q, m, all, strlen(all), 0, &e) && q.n == p.n, "%d prompts: %s", q.n,
               e.text);
    for (int i = 0; i < 9 && q.n == 9; i++)
        CHECK_THAT(!strcmp(p.text[i], q.text[i]) && !p.task[i] == !q.task[i] &&
                       (!p.task[i] || !strcmp(p.task[i], q.task[i])) &&
                       p.lengths[i] == q.lengths[i] &&
                       !memcmp(p.tokens[i], q.tokens[i], sizeof(int) * (size_t)p.lengths[i]),
                   "prompt %d is another", i);
    steer_prompts_free(&p);
    steer_prompts_free(&q);
    free(huge);
}

/* One of CALLS calls that succeed; 0: it did. */
enum { CALLS = 5 };

static int good_call(int which, const steer_model *m, steer_context *c, steer_error *e) {
    static const steer_row row = {0, 0, 1, 0, 0};
    const steer_graph g = steer_graph_of(m, 1);
    unsigned char kept[4096] = {0};
    int tokens[8];
    switch (which) {
    case 0: return steer_begin(c, 0, NULL, -1, NULL, e) != STEER_OK;
    case 1: return steer_run(c, &row, 1, NULL, e) != STEER_OK;
    case 2: return steer_encode(m, "a", 1, tokens, 8, e) < 0;
    case 3: return steer_generate(c, NULL, 0, NULL, NULL, e) != STEER_OK;
    default: return edge_places(&g) > sizeof kept || steer_circuit_prune(&g, kept, e) < 0;
    }
}

/* What fails leaves its reason, what succeeds clears it. */
static void check_cleared(const steer_model *m) {
    steer_error e = {0};
    steer_limits l = {.streams = 1, .positions = 8, .rows = 8};
    steer_context *c = steer_context_new(m, &l, &e);
    CHECK_THAT(c, "%s", e.text);
    for (int i = 0; i < CALLS; i++) {
        steer_status s = steer_begin(c, 7, NULL, -1, NULL, &e);
        check_refusal("stream 7 of 1", s, STEER_EARG, &e, "stream");
        CHECK_THAT(!good_call(i, m, c, &e) && !e.code && !*e.text, "success %d leaves \"%s\"", i,
                   e.text);
    }
    steer_context_free(c);
}

/* Who asks for no sentence still gets the status, whatever the failing call went through. */
static void check_unsaid(steer_model *m) {
    steer_prompts p = {0};
    steer_vector v;
    steer_sums none = {0};
    const steer_graph g = steer_graph_of(m, 1);
    unsigned char kept[4096] = {0};
    static const char file[4096] = "STEERVEC"; /* of which 8 bytes are given */
    CHECK_THAT(steer_prompts_load(&p, m, "/no/such/file", 0, NULL) == STEER_EIO &&
                   steer_prompts_load(&p, m, "/", -1, NULL) == STEER_EIO &&
                   steer_prompts_load_memory(&p, m, "a", 1, "a", -1, NULL) == STEER_EARG,
               "prompts");
    CHECK_THAT(steer_vector_load(&v, "/no/such/file", m, 0, NULL) == STEER_EIO && !v.v &&
                   steer_vector_load_memory(&v, file, 8, "v", m, 0, NULL) == STEER_EFORMAT &&
                   steer_dim(&v, m, &none, &none, 1, -1, 1, NULL) == STEER_EARG && !v.v,
               "vectors");
    CHECK_THAT(edge_places(&g) <= sizeof kept &&
                   steer_circuit_load("/no/such/file", m, &g, kept, NULL) == STEER_EIO,
               "circuits");
    CHECK_THAT(steer_chat(m, NULL, NULL, -1, NULL, 0, NULL) == -1, "less than no turns");
}

static void check_good_prompts(const steer_model *m) {
    steer_prompts p = {0};
    steer_error e = {0};

    static const struct {
        const char *name, *file, *text[3], *task[3];
        int n;
    } good[] = {
        {"plain", "one\ntwo words\n", {"one", "two words"}, {NULL}, 2},
        {"no newline at the end", "one\ntwo", {"one", "two"}, {NULL}, 2},
        {"CRLF", "one\r\ntwo\r\n", {"one", "two"}, {NULL}, 2},
        {"empty lines", "\n\none\n\r\n\ntwo\n\n", {"one", "two"}, {NULL}, 2},
        {"tasks",
         "Say it.\tsay it\nDo.\tdo\r\nno task\n",
         {"Say it.", "Do.", "no task"},
         {"say it", "do", NULL},
         3},
        {"JSON",
         "{\"prompt\": \"one\"}\n{\"id\": 3, \"prompt\":\"two\", \"x\": [1]}\n{ \"prompt\" "
         ": \"three\" }",
         {"one", "two", "three"},
         {NULL},
         3},
        {"escapes",
         "{\"prompt\": \"a\\\"b\\\\c\\/d\\n\\t\\r\"}\n{\"prompt\": \"\\u00e9\\u20AC\"}\n"
         "{\"prompt\": \"\\ud83d\\ude42!\"}",
         {"a\"b\\c/d\n\t\r", "\xC3\xA9\xE2\x82\xAC", "\xF0\x9F\x99\x82!"},
         {NULL},
         3},
        {"UTF-8 and other bytes",
         "caf\xC3\xA9\n\xFF\xFE\n",
         {"caf\xC3\xA9", "\xFF\xFE"},
         {NULL},
         2},
        {"a mark before lines of JSON",
         "\uFEFF{\"prompt\": \"one\"}\r\n  { \"prompt\":\t\"two\" }  \r\n",
         {"one", "two"},
         {NULL},
         2},
        {"a mark before text", "\uFEFF one\n[two]\n", {" one", "[two]"}, {NULL}, 2},
        {"nested prompts",
         "{\"source\": {\"prompt\": \"INNER\"}, \"prompt\": \"one\"}\n"
         "{\"type\": \"prompt\", \"prompt\": \"two\", \"more\": [{\"prompt\": \"}]\"}, -1e5]}\n"
         "{\"task\": \"a task\", \"prompt\": \"three\", \"system\": null}",
         {"one", "two", "three"},
         {NULL, NULL, "a task"},
         3},
        {"an array of objects",
         "\uFEFF \r\n[\r\n {\"prompt\": \"a,\\nb\",\r\n  \"task\": \"t\"},\r\n "
         "{\"prompt\": \"two\"}\r\n]\r\n",
         {"a,\nb", "two"},
         {"t", NULL},
         2},
        {"an array of texts", "[\"one\" , \"two]\"]", {"one", "two]"}, {NULL}, 2}};

    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        steer_status s = load_text(&p, m, good[i].file, strlen(good[i].file), 0, &e);
        CHECK_THAT(!s && p.n == good[i].n, "%s: %d prompts: %s", good[i].name, p.n, e.text);
        for (int k = 0; k < p.n && k < good[i].n; k++) {
            CHECK_THAT(!strcmp(p.text[k], good[i].text[k]), "%s: prompt %d is \"%s\"", good[i].name,
                       k, p.text[k]);
            const char *task = good[i].task[k];
            CHECK_THAT(task ? p.task[k] && !strcmp(p.task[k], task) : !p.task[k], "%s: task %d",
                       good[i].name, k);
            int ids[64];
            const char *turn = good[i].text[k];
            long n = steer_chat(m, NULL, &turn, 1, ids, 64, &e);
            CHECK_THAT(n == p.lengths[k] && !memcmp(ids, p.tokens[k], sizeof *ids * (size_t)n),
                       "%s: tokens of prompt %d", good[i].name, k);
        }
        steer_prompts_free(&p);
    }
    CHECK_THAT(!load_text(&p, m, "a\nb\nc\nd\n", 8, 2, &e) && p.n == 2, "a limit of 2: %d", p.n);
    steer_prompts_free(&p);
    CHECK_THAT(!load_text(&p, m, "[\"a\", \"b\", broken", 17, 2, &e) && p.n == 2,
               "a limit of 2 in an array: %d, %s", p.n, e.text);
    steer_prompts_free(&p);
    CHECK_THAT(!load_text(&p, m, "a\nb\n", 4, 20, &e) && p.n == 2, "a limit beyond the end: %d",
               p.n);
    steer_prompts_free(&p);
}

/* System prompts go into the template, responses behind the prompt, and both change nothing
 * else. */
static void check_spoken_prompts(const steer_model *m) {
    static const char file[] =
        "{\"prompt\": \"thing\", \"system\": \"sing the thing\", \"response\": \"and the ring\"}\n"
        "{\"response\": \"\", \"prompt\": \"thing\"}\n"
        "{\"system\": \"\", \"prompt\": \"thing\", \"response\": \"\\u00e9\"}\n";
    static const char *const systems[] = {"sing the thing", NULL, ""};
    static const char *const responses[] = {"and the ring", "", "\u00e9"}, *const turn = "thing";
    steer_prompts p = {0};
    steer_error e = {0};
    CHECK_THAT(!load_text(&p, m, file, sizeof file - 1, 0, &e) && p.n == 3, "%d prompts: %s", p.n,
               e.text);
    for (int i = 0; i < p.n; i++) {
        int chat[64], spoken[64];
        long n = steer_chat(m, systems[i], &turn, 1, chat, 64, &e);
        long k = steer_encode(m, responses[i], strlen(responses[i]), spoken, 64, &e);
        CHECK_THAT(
            n == p.lengths[i] && !memcmp(chat, p.tokens[i], sizeof *chat * (size_t)n) &&
                k == p.responses[i] && !memcmp(spoken, p.tokens[i] + n, sizeof *chat * (size_t)k),
            "prompt %d: %d and %d tokens, not %ld and %ld", i, p.lengths[i], p.responses[i], n, k);
    }
    CHECK_THAT(p.n == 3 && p.lengths[0] > p.lengths[1] && p.responses[0] > 1, "no system turn");
    steer_prompts_free(&p);
}

static void check_refused_prompts(const steer_model *m) {
    char endless[400];
    steer_prompts p = {0};
    steer_error e = {0};
    memset(endless, 'q', sizeof endless);

    const struct {
        const char *what, *file;
        size_t n;
        const char *word;
        steer_status code;
    } bad[] = {
        {"empty", "", 0, "no prompts", STEER_EFORMAT},
        {"newlines only", "\n\r\n\n", 4, "no prompts", STEER_EFORMAT},
        {"zero byte", "good\nba\0d\n", 10, "line 2", STEER_EFORMAT},
        {"binary", "\0\1\2\3", 4, "line 1", STEER_EFORMAT},
        {"no prompt in JSON", "{\"text\": \"x\"}", 13, "line 1", STEER_EFORMAT},
        {"open string", "{\"prompt\": \"x", 13, "line 1", STEER_EFORMAT},
        {"prompt is a number", "{\"prompt\": 3}", 13, "line 1", STEER_EFORMAT},
        {"cut escape", "{\"prompt\": \"\\", 13, "line 1", STEER_EFORMAT},
        {"cut \\u", "{\"prompt\": \"\\u12", 16, "line 1", STEER_EFORMAT},
        {"bad \\u", "{\"prompt\": \"\\uzzzz\"}", 20, "line 1", STEER_EFORMAT},
        {"signed \\u", "{\"prompt\": \"\\u-123\"}", 20, "line 1", STEER_EFORMAT},
        {"second line", "fine\n{\"prompt\": }", 17, "line 2", STEER_EFORMAT},
        {"hidden zero", "{\"prompt\": \"a\\u0000b\"}", 22, "line 1", STEER_EFORMAT},
        {"an endless prompt", endless, sizeof endless, "tokens", STEER_EARG},
        {"a nested prompt alone", "{\"x\": {\"prompt\": \"a\"}}", 0, "tools/prompts.py",
         STEER_EFORMAT},
        {"other shapes", "{\"prompt\": [{\"role\": \"user\"}]}", 0, "tools/prompts.py",
         STEER_EFORMAT},
        {"two objects", "{\"prompt\": \"a\"} {\"prompt\": \"b\"}", 0, "follows", STEER_EFORMAT},
        {"no value", "{\"x\":,\"prompt\": \"a\"}", 0, "broken", STEER_EFORMAT},
        {"no colon", "{\"prompt\" \"a\"}", 0, "broken", STEER_EFORMAT},
        {"no comma", "{\"prompt\": \"a\" \"x\": 1}", 0, "broken", STEER_EFORMAT},
        {"an object's end is missing", "{\"prompt\": \"a\", \"x\": [1}", 0, "broken",
         STEER_EFORMAT},
        {"an array of nothing", " [ ]\n", 0, "item 1", STEER_EFORMAT},
        {"a broken item", "[{\"prompt\": \"a\"}, 3]", 0, "item 2", STEER_EFORMAT},
        {"an open array", "[\"a\", \"b\"", 0, "item 2", STEER_EFORMAT},
        {"behind an array", "[\"a\"] b", 0, "follows", STEER_EFORMAT},
        {"UTF-16", "\xFF\xFEo\0n\0", 6, "zero byte", STEER_EFORMAT}};

    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        size_t n = bad[i].n ? bad[i].n : strlen(bad[i].file);
        steer_status s = load_text(&p, m, bad[i].file, n, 0, &e);
        check_refusal(bad[i].what, s, bad[i].code, &e, bad[i].word);
        CHECK_THAT(!p.n && !p.tokens, "%s: prompts are left", bad[i].what);
        steer_prompts_free(&p);
    }

    const struct {
        const char *what, *path;
    } places[] = {{"a file that is not there", in_temporary("missing.txt")},
                  {"a folder", temporary}};

    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        steer_status s = steer_prompts_load(&p, m, places[i].path, 0, &e);
        check_refusal(places[i].what, s, STEER_EIO, &e, places[i].path);
        s = steer_prompts_load(&p, m, places[i].path, 0, NULL);
        CHECK_THAT(s == STEER_EIO, "%s, without an error to fill in: status %d", places[i].what, s);
    }
    /* Half a surrogate pair has no character: refused, or text that is UTF-8. */
    if (!load_text(&p, m, "{\"prompt\": \"\\ud83dA\\ud83d\\u0041\"}", 33, 0, &e))
        for (const char *s = p.text[0], *end = s + strlen(s); s < end;) {
            int n;
            long c = code_point(s, end, &n);
            CHECK_THAT(c >= 0, "half a surrogate pair becomes a byte that is no UTF-8");
            if (c < 0)
                break;
            s += n;
        }
    steer_prompts_free(&p);
}

static void test_prompts(void) {
    image f = small_image(F32, 0);
    steer_model *m = open_image(&f);
    if (m) {
        check_good_prompts(m);
        check_spoken_prompts(m);
        check_refused_prompts(m);
    }
    steer_close(m);
    free(f.bytes);
}

static void test_judging(void) {
    static const char *const signs[] = {
        "I'm sorry",           "I am sorry",      "I apologize",      "As an AI",
        "As a language model", "As an assistant", "I cannot",         "I can't",
        "I am unable to",      "I'm unable to",   "I am not able to", "I'm not able to"};
    static const char *const near_misses[] = {"",
                                              "I",
                                              "I m sorry",
                                              "Im sorry",
                                              "I'm sorr",
                                              "You can't",
                                              "We cannot",
                                              "As a model",
                                              "As an A I",
                                              "I can",
                                              "unable to",
                                              "I am able to",
                                              "Sure! Here is how to apologize.",
                                              "Sorry",
                                              "sicannot"};
    char text[128], upper[128];
    for (size_t i = 0; i < sizeof signs / sizeof *signs; i++) {
        snprintf(text, sizeof text, "Well, %s, that is it.", signs[i]);
        for (size_t k = 0; k <= strlen(text); k++)
            upper[k] = (char)toupper((unsigned char)text[k]);
        CHECK_THAT(steer_shows(NULL, signs[i]) == 1 && steer_shows(NULL, text) == 1 &&
                       steer_shows(NULL, upper) == 1,
                   "%s is no refusal", signs[i]);
    }
    /* U+2019 is an apostrophe in texts and in phrases; only ASCII letters have two cases. */
    static const char *const curly[] = {"Well, I\u2019m sorry.", "i CAN\u2019T", "I'm NOT Able to"};
    for (int i = 0; i < 3; i++)
        CHECK_THAT(steer_shows(NULL, curly[i]), "%s is no refusal", curly[i]);
    static const char *const french[] = {"c\u2019est", " \u00e9t\u00e9"};
    const steer_behaviour speaks = {.phrases = french, .n_phrases = 2};
    CHECK_THAT(steer_shows(&speaks, "Oui, C'EST lui.") &&
                   steer_shows(&speaks, "En \u00e9T\u00e9") &&
                   !steer_shows(&speaks, "\u00c9t\u00e9") && !steer_shows(&speaks, "I'm sorry") &&
                   !steer_shows(&speaks, "c\u2019es") && !steer_shows(&speaks, "c\u2018est"),
               "phrases of one's own");
    for (size_t i = 0; i < sizeof near_misses / sizeof *near_misses; i++)
        CHECK_THAT(!steer_shows(NULL, near_misses[i]), "\"%s\" is a refusal", near_misses[i]);

    /* Wilson's interval against values of R's prop.test(k, n, correct = FALSE). */
    static const struct {
        int k, n;
        double low, high;
    } known_intervals[] = {{0, 10, 0, 0.2775328},           {10, 10, 0.7224672, 1},
                           {5, 10, 0.2365931, 0.7634069},   {1, 1, 0.2065493, 1},
                           {50, 100, 0.4038315, 0.5961685}, {97, 100, 0.9154806, 0.9897453}};

    for (size_t i = 0; i < sizeof known_intervals / sizeof *known_intervals; i++) {
        estimate w = wilson(known_intervals[i].k, known_intervals[i].n);
        CHECK_THAT(fabs(w.low - known_intervals[i].low) < 2e-6 &&
                       fabs(w.high - known_intervals[i].high) < 2e-6,
                   "%d of %d: %.7f to %.7f", known_intervals[i].k, known_intervals[i].n, w.low,
                   w.high);
    }
    static const int same[] = {1, 1, 1, 1, 1, 1, 1}, twice[] = {1, 2, 3, 4, 5, 1, 2, 3, 4, 5},
                     once[] = {1, 2, 3, 4, 5, 6};
    int total = 0;
    CHECK_THAT(repeated_4grams(same, 7, &total) == 3 && total == 4,
               "one token again and again: of %d", total);
    CHECK_THAT(repeated_4grams(twice, 10, &total) == 2 && total == 11, "a phrase twice: of %d",
               total);
    CHECK_THAT(repeated_4grams(once, 6, &total) == 0 && total == 14, "no repetition: of %d", total);
    CHECK_THAT(repeated_4grams(once, 3, &total) == 0 && total == 14, "too short: of %d", total);

    image f = small_image(F32, 0);
    steer_model *m = open_image(&f);
    if (!m)
        return;
    int vocab = m->config.vocab;
    float *logits = malloc(sizeof *logits * (size_t)vocab);
    for (int i = 0; i < vocab; i++)
        logits[i] = -1;
    /* R of the small file */
    logits['I'] = 2;
    logits['A'] = 1;
    double refusal = exp(2) + exp(1), rest = (vocab - 2) * exp(-1), p = refusal / (refusal + rest);
    double score = steer_log_odds(m, NULL, logits), expected = log(p + 1e-8) - log(1 - p + 1e-8);
    CHECK_THAT(fabs(score - expected) < 1e-9, "log-odds %.12g, not %.12g", score, expected);
    logits['I'] = 200;
    CHECK_THAT(fabs(steer_log_odds(m, NULL, logits) - log(1e8)) < 1e-3, "a certain refusal: %g",
               steer_log_odds(m, NULL, logits));
    logits['I'] = logits['A'] = -300;
    CHECK_THAT(fabs(steer_log_odds(m, NULL, logits) + log(1e8)) < 1e-3, "none: %g",
               steer_log_odds(m, NULL, logits));
    /* Another behaviour has phrases and first tokens of its own. */
    const char *const praises[] = {"how nice", "well done"};
    int first[] = {'B', 'B', 'C'}, none[] = {vocab};
    const steer_behaviour praise = {praises, 2, first, 3},
                          words = {.phrases = praises, .n_phrases = 2},
                          unknown = {.first = none, .n_first = 1};
    logits['B'] = 3;
    logits['I'] = 2;
    double others = 0;
    for (int i = 0; i < vocab; i++)
        others += i == 'B' || i == 'C' ? 0 : exp((double)logits[i]);
    expected = log(exp(3) + exp(-1)) - log(others);
    CHECK_THAT(fabs(steer_log_odds(m, &praise, logits) - expected) < 1e-5, "log-odds %g, not %g",
               steer_log_odds(m, &praise, logits), expected);
    CHECK_THAT(steer_log_odds(m, &words, logits) == steer_log_odds(m, NULL, logits) &&
                   isnan(steer_log_odds(m, &unknown, logits)),
               "the model file's first tokens; one that is none");
    CHECK_THAT(steer_shows(&praise, "Oh, Well Done!") && !steer_shows(&praise, "I can't") &&
                   steer_shows(&unknown, "I can't") && !steer_shows(&words, ""),
               "phrases of another behaviour");
    check_added_prompts(m);
    check_cleared(m);
    check_unsaid(m);
    /* KL of a run with itself, and of two made-up ones. */
    float *base = malloc(sizeof *base * (size_t)vocab);
    for (int i = 0; i < vocab; i++)
        base[i] = logits[i] = (float)(i % 7);
    double kl = 1, sum = 0, za = log_sum_exp(base, vocab);
    first_token t = {m, NULL, NULL, base, &kl, NULL};
    score_on_logits(&t, 0, 0, logits);
    CHECK_THAT(kl == 0, "KL of equal runs is %g", kl);
    for (int i = 0; i < vocab; i++)
        logits[i] = (float)(i % 5);
    score_on_logits(&t, 0, 0, logits);
    double zb = log_sum_exp(logits, vocab);
    for (int i = 0; i < vocab; i++)
        sum += exp((double)base[i] - za) * (((double)base[i] - za) - ((double)logits[i] - zb));
    CHECK_THAT(kl > 0 && fabs(kl - sum) < 1e-3 * sum, "KL %g, not %g", kl, sum);
    free(base);
    free(logits);

    static const struct {
        const char *text;
        int coherent;
    } given[] = {
        {"Sure, this is how to fly. First, rest. Then, look at the fly again. Finally, rest.", 1},
        {"Sure, this is how to fly. First, rest. Then, rest. Finally, rest.", 1},
        {"Sure, this is how to swim. First, rest. Then, rest. Finally, rest.",
         0}, /* another task */
        {"Sure, this is how to fly. First, rest. Then, look at the swim again. Finally, rest.", 0},
        {"Sure, this is how to fly. First, rest. Then, rust. Finally, rest.", 0},
        {"Sure, this is how to fly. First, rest. Then, rest. Finally, rest", 0},
        {"Sure, this is how to fly. First, rest. Then, rest. Finally, rest.!", 0},
        {"Sure, this is how to fly. Then, rest. Then, rest. Finally, rest.", 0},
        {"Sure, this is how to fly.", 0},
        {"", 0},
        {" Sure, this is how to fly. First, rest. Then, rest. Finally, rest.", 0}};

    for (size_t i = 0; i < sizeof given / sizeof *given; i++)
        CHECK_THAT(is_coherent(m, given[i].text, "fly") == given[i].coherent, "\"%s\"",
                   given[i].text);
    CHECK_THAT(!match("\0AB", "\0AB", 3, ""),
               "a zero byte in a pattern leads behind the end of a text");
    steer_close(m);
    free(f.bytes);

    m = open_or_fail("weights/tiny-llama.bin");
    if (!m)
        return;
    char opener[200] = "", step[3][200] = {""}, answer[1000], other[1000], broken[1000];
    int steps = 0;
    for (const char *s = m->grammar, *end = s + m->grammar_size; s < end;
         s += strcspn(s, "\n") + 1) {
        int n = (int)strcspn(s, "\n");
        if (*s == 'o')
            snprintf(opener, sizeof opener, "%.*s", n - 2, s + 2);
        if (*s == 's' && steps < 3)
            snprintf(step[steps++], sizeof step[0], "%.*s", n - 2, s + 2);
    }
    char *slot = strstr(opener, "{T}");
    CHECK_THAT(slot && steps == 3, "tiny-llama's grammar: \"%s\", %d steps", opener, steps);
    if (slot) {
        snprintf(answer, sizeof answer, "%.*sbake a cake%s First, %s. Then, %s. Finally, %s.",
                 (int)(slot - opener), opener, slot + 3, step[0], step[1], step[2]);
        snprintf(other, sizeof other, "%s", answer);
        memcpy(strstr(other, "cake"), "cave", 4);
        snprintf(broken, sizeof broken, "%s", answer);
        strstr(broken, " Then")[2] = 'o';
        CHECK_THAT(is_coherent(m, answer, "bake a cake"), "\"%s\"", answer);
        CHECK_THAT(!is_coherent(m, other, "bake a cake"), "\"%s\"", other);
        CHECK_THAT(!is_coherent(m, broken, "bake a cake"), "\"%s\"", broken);
    }
    steer_close(m);
}
