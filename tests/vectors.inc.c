/* Vectors in the formats of other programs, and of a model's other files. */

/* A vector with a direction for block 1 and, with `several`, one behind the last block, too. */
static steer_vector made_vector(const steer_model *m, int several) {
    steer_vector v = random_dim(m, 5);
    size_t d = (size_t)v.d;
    if (!several)
        return v;
    v.every = calloc(((size_t)v.layers + 1) * d, sizeof *v.every);
    memcpy(v.every + d, v.v, d * sizeof *v.v);
    for (size_t i = 0; i < d; i++)
        v.every[(size_t)v.layers * d + i] = (float)random_value(5, 62, 0, i);
    return v;
}

static int same_floats(const float *a, const float *b, size_t n) {
    return a && b ? !memcmp(a, b, n * sizeof *a) : a == b;
}

/* All of a vector comes back; `numbers`: its numbers and block alone, as in .npy. */
static void check_same_vector(const steer_vector *a, const steer_vector *b, int numbers,
                              const char *what) {
    size_t d = (size_t)a->d, rows = (size_t)a->layers + 1;
    CHECK_THAT(a->d == b->d && a->layers == b->layers && a->layer == b->layer, "%s: shape, block",
               what);
    CHECK_THAT(same_floats(a->v, b->v, d) && same_floats(a->every, b->every, rows * d),
               "%s: other numbers", what);
    CHECK_THAT(numbers ||
                   (a->pos == b->pos && a->coeff == b->coeff && a->fingerprint == b->fingerprint &&
                    a->identity == b->identity && a->template_crc == b->template_crc &&
                    !strcmp(a->method, b->method) && !strcmp(a->model, b->model) &&
                    same_floats(a->keep, b->keep, 3 * (size_t)a->layers)),
               "%s: its header or its means do not come back", what);
}

/* A vector that must be refused, with these words in the message. */
static void check_untaken(const steer_model *m, const void *bytes, size_t n, unsigned flags,
                          steer_status code, const char *word, const char *what) {
    steer_vector v;
    steer_error e = {0};
    steer_status s = steer_vector_load_memory(&v, bytes, n, "x", m, flags, &e);
    check_refusal(what, s, code, &e, word);
    CHECK_THAT(!v.v && !v.keep && !v.every, "%s: keeps memory", what);
    steer_vector_free(&v);
}

/* Each format of a vector comes back; cut anywhere it is refused; with any bit flipped it is
 * refused or holds finite numbers for blocks that there are. */
static void check_format(const steer_model *m, const steer_vector *v, const char *name) {
    int npy = strstr(name, ".npy") != NULL;
    unsigned flags = npy ? STEER_FOREIGN : 0;
    steer_vector w;
    steer_error e = {0};
    size_t n;
    char path[128];
    snprintf(path, sizeof path, "%s", in_temporary(name));
    CHECK_THAT(!steer_vector_save(v, path, &e), "%s", e.text);
    CHECK_THAT(!steer_vector_load(&w, path, m, flags, &e), "%s", e.text);
    if (npy && !v->every)
        w.layer = v->layer; /* an array [d] does not say it */
    check_same_vector(v, &w, npy, name);
    steer_vector_free(&w);

    unsigned char *bytes = (unsigned char *)read_file(path, &n, &e);
    CHECK_THAT(bytes, "%s", e.text);
    for (size_t k = 0; k < n; k++) {
        unsigned char *cut = malloc(k + 1); /* no byte more, so that sanitizers see one that is */
        memcpy(cut, bytes, k);
        steer_status s = steer_vector_load_memory(&w, cut, k, name, m, STEER_FOREIGN, &e);
        CHECK_THAT(s && e.code == s && !w.v, "%zu bytes of %zu of %s are taken", k, n, name);
        free(cut);
    }
    for (size_t at = 0; at < n; at++)
        for (int bit = 0; bit < 8; bit++) {
            bytes[at] ^= (unsigned char)(1 << bit);
            steer_status s = steer_vector_load_memory(&w, bytes, n, name, m, STEER_FOREIGN, &e);
            CHECK_THAT(s ? e.code == s && *e.text && !w.v
                         : isfinite(w.coeff) && !outside(w.layer, 0, w.layers - !w.every) &&
                               !outside(w.pos, -m->eoi, 0) && not_finite(w.v, (size_t)w.d) < 0,
                       "%s: byte %zu, bit %d: status %d", name, at, bit, (int)s);
            steer_vector_free(&w);
            bytes[at] ^= (unsigned char)(1 << bit);
        }
    free(bytes);
}

/* A GGUF made by hand, as other programs write it. */
typedef struct {
    unsigned char bytes[8192];
    size_t n;
} hand_made;

static void add_number(hand_made *f, uint64_t x, size_t n) {
    memcpy(f->bytes + f->n, &x, n);
    f->n += n;
}

static void add_text(hand_made *f, const char *s) {
    add_number(f, strlen(s), 8);
    memcpy(f->bytes + f->n, s, strlen(s));
    f->n += strlen(s);
}

/* What stands before the tensors: fields of many types, some of which mean nothing here. */
static void begin_hand_made(hand_made *f, const char *architecture, int version, int tensors) {
    f->n = 0;
    memset(f->bytes, 0, sizeof f->bytes);
    memcpy(f->bytes, "GGUF", 4);
    f->n = 4;
    add_number(f, (uint64_t)version, 4);
    add_number(f, (uint64_t)tensors, 8);
    add_number(f, 6, 8);
    add_text(f, "general.architecture");
    add_number(f, 8, 4);
    add_text(f, architecture);
    add_text(f, "controlvector.model_hint");
    add_number(f, 8, 4);
    add_text(f, "qwen2");
    add_text(f, "general.alignment");
    add_number(f, 4, 4);
    add_number(f, 64, 4);
    add_text(f, "a.list.of.texts");
    add_number(f, 9, 4);
    add_number(f, 8, 4);
    add_number(f, 2, 8);
    add_text(f, "one");
    add_text(f,
             "a longer one than any key, of which nothing is kept, as no field is so long: ....");
    add_text(f, "a.number");
    add_number(f, 12, 4);
    add_number(f, 7, 8);
    add_text(f, "a.list.of.numbers");
    add_number(f, 9, 4);
    add_number(f, 2, 4);
    add_number(f, 3, 8);
    add_number(f, 1, 6);
}

static void add_tensor(hand_made *f, const char *name, int d, int dimensions, int type,
                       uint64_t offset) {
    add_text(f, name);
    add_number(f, (uint64_t)dimensions, 4);
    for (int i = 0; i < dimensions; i++)
        add_number(f, (uint64_t)d, 8);
    add_number(f, (uint64_t)type, 4);
    add_number(f, offset, 8);
}

/* The numbers of n tensors of d: 1, 2, 3, ... */
static void end_hand_made(hand_made *f, int n, int d) {
    f->n = round_up(f->n, 64);
    for (int i = 0; i < n * d; i++) {
        float x = (float)(i + 1);
        memcpy(f->bytes + f->n, &x, 4);
        f->n += 4;
    }
}

/* Control vectors of others: which block each direction is for, and what is refused. */
static void check_hand_made(const steer_model *m) {
    enum { LAST = 1 }; /* the number of the model's last block */

    static const struct {
        const char *what, *architecture, *first, *second, *word;
        int version, dimensions, type;
        steer_status code;
        int wider;
    } refused[] = {
        {"a model", "llama", "direction.0", "direction.1", "no control vector", 3, 1, 0,
         STEER_EFORMAT, 0},
        {"version 1", "controlvector", "direction.0", "direction.1", "version", 1, 1, 0,
         STEER_EFORMAT, 0},
        {"another tensor", "controlvector", "direction.0", "keep", "tensor 1", 3, 1, 0,
         STEER_EFORMAT, 0},
        {"a name with more behind", "controlvector", "direction.0", "direction.1x", "tensor 1", 3,
         1, 0, STEER_EFORMAT, 0},
        {"a number without digits", "controlvector", "direction.", "direction.1", "tensor 0", 3, 1,
         0, STEER_EFORMAT, 0},
        {"a negative number", "controlvector", "direction.-1", "direction.1", "tensor 0", 3, 1, 0,
         STEER_EFORMAT, 0},
        {"the same twice", "controlvector", "direction.1", "direction.1", "twice", 3, 1, 0,
         STEER_EFORMAT, 0},
        {"behind the last block", "controlvector", "direction.0", "direction.2", "direction.2", 3,
         1, 0, STEER_EMISMATCH, 0},
        {"far behind it", "controlvector", "direction.0", "direction.999", "direction.999", 3, 1, 0,
         STEER_EMISMATCH, 0},
        {"a matrix", "controlvector", "direction.0", "direction.1", "tensor 0", 3, 2, 0,
         STEER_EFORMAT, 0},
        {"f16", "controlvector", "direction.0", "direction.1", "tensor 0", 3, 1, 1, STEER_EFORMAT,
         0},
        {"another width", "controlvector", "direction.0", "direction.1", "width", 3, 1, 0,
         STEER_EMISMATCH, 1},
    };

    hand_made f;
    steer_vector v;
    steer_error e = {0};
    int d = m->config.d;
    begin_hand_made(&f, "controlvector", 3, 2);
    add_tensor(&f, "direction.1", d, 1, 0, 0); /* behind the last block, first in the file */
    add_tensor(&f, "direction.0", d, 1, 0, 4 * (uint64_t)d);
    end_hand_made(&f, 2, d);
    check_untaken(m, f.bytes, f.n, 0, STEER_EMISMATCH, "STEER_FOREIGN",
                  "a file that names no model");
    CHECK_THAT(!steer_vector_load_memory(&v, f.bytes, f.n, "x", m, STEER_FOREIGN, &e), "%s",
               e.text);
    steer_edit edits[3];
    int n = steer_vector_edits(&v, -2, edits);
    CHECK_THAT(n == 2 && edits[0].layer == LAST && edits[1].layer == LAST + 1 && v.layer == LAST,
               "%d edits, the first at block %d", n, edits[0].layer);
    CHECK_THAT(edits[0].v[0] == (float)(d + 1) && edits[1].v[0] == 1 && edits[1].coeff == -2 &&
                   v.v[1] == (float)(d + 2),
               "the directions are exchanged");
    CHECK_THAT(v.coeff == 1 && v.pos == -1 && !v.keep && !v.fingerprint &&
                   !strcmp(v.model, "qwen2"),
               "what the file does not say");
    steer_vector_free(&v);

    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        int wide = d + refused[i].wider;
        begin_hand_made(&f, refused[i].architecture, refused[i].version, 2);
        add_tensor(&f, refused[i].first, wide, refused[i].dimensions, refused[i].type, 0);
        add_tensor(&f, refused[i].second, wide, 1, 0, 4 * (uint64_t)d);
        end_hand_made(&f, 2, wide);
        check_untaken(m, f.bytes, f.n, STEER_FOREIGN, refused[i].code, refused[i].word,
                      refused[i].what);
    }

    /* Numbers of things that no file holds, and places behind its end. */
    static const uint64_t huge[] = {UINT64_MAX, UINT64_MAX / 2, 1ull << 62, 1ull << 32};
    for (size_t i = 0; i < sizeof huge / sizeof *huge; i++) {
        begin_hand_made(&f, "controlvector", 3, 1);
        add_tensor(&f, "direction.0", d, 1, 0, huge[i]);
        end_hand_made(&f, 1, d);
        check_untaken(m, f.bytes, f.n, STEER_FOREIGN, STEER_EFORMAT, "not whole", "a far offset");
        for (size_t at = 8; at <= 24; at += 8) { /* tensors, fields, the first key's length */
            memcpy(f.bytes + at, &huge[i], 8);
            check_untaken(m, f.bytes, f.n, STEER_FOREIGN, STEER_EFORMAT, "x: ", "a huge number");
            begin_hand_made(&f, "controlvector", 3, 1);
            add_tensor(&f, "direction.0", d, 1, 0, 0);
            end_hand_made(&f, 1, d);
        }
    }
}

/* Arrays of numpy: types and shapes. */
static void check_arrays(const steer_model *m) {
    static const struct {
        const char *head;
        size_t rows, width;
        int taken;
    } heads[] = {
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (16,), }", 1, 4, 1},
        {"{'descr': '<f8', 'fortran_order': False, 'shape': (16,), }", 1, 8, 1},
        {"{'descr': '<f8', 'fortran_order': False, 'shape': (2, 16), }", 2, 8, 1},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (3, 16), }", 3, 4, 1},
        {"{'descr': '>f4', 'fortran_order': False, 'shape': (16,), }", 1, 4, 0},
        {"{'descr': '<f2', 'fortran_order': False, 'shape': (16,), }", 1, 2, 0},
        {"{'descr': '<f4', 'fortran_order': True, 'shape': (3, 16), }", 3, 4, 0},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (15,), }", 1, 4, 0},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (4, 16), }", 4, 4, 0},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (1, 2, 16), }", 2, 4, 0},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999, 16), }", 2, 4,
         0},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (-3, 16), }", 3, 4, 0},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (), }", 1, 4, 0},
        {"", 1, 4, 0},
    };

    for (size_t i = 0; i < sizeof heads / sizeof *heads; i++) {
        hand_made f = {.n = 0};
        steer_vector v;
        steer_error e = {0};
        memcpy(f.bytes, "\x93NUMPY\1", 7);
        f.n = 8;
        add_number(&f, strlen(heads[i].head), 2);
        memcpy(f.bytes + f.n, heads[i].head, strlen(heads[i].head));
        f.n += strlen(heads[i].head);
        for (size_t k = 0; k < heads[i].rows * 16; k++) {
            double wide = (double)k + 0.5;
            float narrow = (float)wide;
            memcpy(f.bytes + f.n, heads[i].width == 8 ? (void *)&wide : (void *)&narrow,
                   heads[i].width);
            f.n += heads[i].width;
        }
        steer_status s = steer_vector_load_memory(&v, f.bytes, f.n, "x", m, STEER_FOREIGN, &e);
        CHECK_THAT(heads[i].taken ? !s : s == STEER_EMISMATCH, "%s: status %d, %s", heads[i].head,
                   (int)s, e.text);
        if (!s)
            CHECK_THAT(v.v[15] == 15.5f && !v.every == (heads[i].rows == 1) &&
                           (!v.every || v.every[31] == 31.5f),
                       "%s: other numbers", heads[i].head);
        steer_vector_free(&v);
    }
}

/* A vector of one file of a model is taken by its others, and not by another model unless told. */
static void check_other_files(const steer_model *m, const steer_vector *v) {
    image narrow = small_image(BF16, 0), near = small_image(F32, 0), norm = small_image(F32, 0);
    image wide = small_image(Q8, 0);
    near.bytes[near.data + 3] ^= 1; /* another weight, as rounding leaves it */
    seal(&near);
    const unsigned char *start = m->bytes;
    norm.bytes[(const unsigned char *)m->blocks[1].mlp_norm - start + 2] ^= 1; /* another norm */
    seal(&norm);
    steer_model *others[] = {open_image(&narrow), open_image(&near), open_image(&norm),
                             open_image(&wide)};
    steer_error e = {0};
    steer_vector w;
    char path[128];
    snprintf(path, sizeof path, "%s", in_temporary("of.gguf"));
    CHECK_THAT(!steer_vector_save(v, path, &e), "%s", e.text);
    for (int i = 0; i < 2; i++) {
        const steer_config *c = steer_model_config(others[i]);
        CHECK_THAT(!steer_vector_load(&w, path, others[i], 0, &e), "%s", e.text);
        CHECK_THAT(w.identity == c->identity && w.fingerprint != c->fingerprint && w.keep,
                   "file %d: not told from its own", i);
        steer_vector_free(&w);
    }
    check_refusal("another norm", steer_vector_load(&w, path, others[2], 0, &e), STEER_EMISMATCH,
                  &e, "--foreign");
    CHECK_THAT(!steer_vector_load(&w, path, others[2], STEER_FOREIGN, &e), "%s", e.text);
    CHECK_THAT(!w.keep && w.fingerprint == v->fingerprint, "another model's means are kept");
    steer_vector_free(&w);
    check_refusal("another width", steer_vector_load(&w, path, others[3], STEER_FOREIGN, &e),
                  STEER_EMISMATCH, &e, "width");
    check_refusal("an unknown flag", steer_vector_load(&w, path, m, 2, &e), STEER_EARG, &e, "0x2");
    for (int i = 0; i < 4; i++)
        steer_close(others[i]);
    free(narrow.bytes);
    free(near.bytes);
    free(norm.bytes);
    free(wide.bytes);
}

static void test_vector_formats(void) {
    static const char *const names[] = {"one.vec", "one.gguf", "one.npy"};
    image f = small_image(F32, 0);
    steer_model *m = open_image(&f);
    if (!m)
        return;
    steer_error e = {0};
    for (int several = 0; several < 2; several++) {
        steer_vector v = made_vector(m, several);
        for (int i = 0; i < 3; i++)
            check_format(m, &v, names[i]);
        if (!several)
            check_other_files(m, &v);
        free(v.keep);
        v.keep = NULL;
        for (int i = 0; i < 3; i++)
            check_format(m, &v, names[i]);
        steer_vector_free(&v);
    }
    steer_vector v = made_vector(m, 0);
    v.layer = 0;
    steer_status s = steer_vector_save(&v, in_temporary("zero.gguf"), &e);
    check_refusal("block 0", s, STEER_EARG, &e, "block 0");
    CHECK_THAT(!exists(in_temporary("zero.gguf")), "a file for block 0");
    steer_vector_free(&v);
    check_hand_made(m);
    check_arrays(m);
    steer_close(m);
    free(f.bytes);
}

/* Directions of several blocks are an ADD a block; one behind the last block is in the residual
 * that the final norm reads, with a twin and without. */
static void test_several_blocks(void) {
    enum { N = 6 };

    image f = small_image(F32, SMALL_GEMMA);
    steer_model *m = open_image(&f);
    if (!m)
        return;
    steer_error e = {0};
    steer_vector v = made_vector(m, 1);
    int d = v.d, layers = v.layers, tokens[N];
    random_tokens(tokens, N, 256);
    steer_edit edits[4];
    CHECK_THAT(steer_vector_edits(&v, 0.5f, edits) == 2, "not two blocks");
    edits[2] = (steer_edit){STEER_FREEZE, .layer = 0, .what = STEER_V};
    const steer_plan plans[] = {{edits, 1}, {edits, 2}, {edits + 1, 1}, {edits, 3}, {edits + 1, 2}};
    steer_limits l = {.streams = 2, .positions = N, .rows = 2 * N};
    steer_context *c = steer_context_new(m, &l, &e);
    size_t stack = (size_t)(layers + 1) * 2 * N * (size_t)d;
    float *resid[6];
    for (int i = 0; i < 6; i++) { /* the last of them: no plan */
        const steer_plan *plan = i < 5 ? &plans[i] : NULL;
        int64_t hits[3] = {0};
        steer_row rows[2 * N];
        int n = 0, twin = i == 3 || i == 4 ? 1 : -1;
        resid[i] = malloc(stack * sizeof(float));
        steer_tape tape = {.resid = resid[i], .rows = 2 * N};
        CHECK_THAT(!steer_begin(c, 1, NULL, -1, NULL, &e) &&
                       !steer_begin(c, 0, plan, twin, hits, &e),
                   "%s", e.text);
        for (int s = 0; s < 2; s++)
            for (int t = 0; t < N; t++, n++)
                rows[n] = (steer_row){s, t, tokens[t], 0, n + 1};
        CHECK_THAT(!steer_run(c, rows, n, &tape, &e), "%s", e.text);
        for (int k = 0; plan && k < plan->n; k++) {
            int64_t expected =
                plan->edits[k].kind == STEER_FREEZE ? N * (layers - c->streams[0].enter) : N;
            CHECK_THAT(hits[k] == expected, "plan %d, edit %d: %lld hits", i, k,
                       (long long)hits[k]);
        }
    }
    for (int t = 0; t < N; t++) {
        const float *last[6];
        for (int i = 0; i < 6; i++)
            last[i] = resid[i] + ((size_t)layers * 2 * N + (size_t)t) * (size_t)d;
        for (int k = 0; k < d; k++) {
            float step = 0.5f * v.every[layers * d + k];
            CHECK_THAT(fabsf(last[1][k] - last[0][k] - step) < 1e-5f &&
                           fabsf(last[2][k] - last[5][k] - step) < 1e-5f,
                       "position %d, dimension %d: not added behind the last block", t, k);
            CHECK_THAT(last[4][k] == last[2][k], "a freeze of nothing steered changes something");
        }
    }
    edits[1].layer = layers + 1;
    CHECK_THAT(steer_begin(c, 0, &plans[1], -1, NULL, &e) == STEER_EARG, "block %d", layers + 1);

    /* What no loader would take is not written. */
    memset(v.every, 0, sizeof *v.every * (size_t)(layers + 1) * (size_t)d);
    static const char *const names[] = {"none.vec", "none.gguf", "none.npy"};
    for (int i = 0; i < 3; i++) {
        const char *path = in_temporary(names[i]);
        CHECK_THAT(steer_vector_save(&v, path, &e) == STEER_EARG && strstr(e.text, "zeros alone"),
                   "%s: %s", names[i], e.text);
        CHECK_THAT(!exists(path), "%s is written", names[i]);
    }
    for (int i = 0; i < 6; i++)
        free(resid[i]);
    steer_vector_free(&v);
    steer_context_free(c);
    steer_close(m);
    free(f.bytes);
}

/* The program takes each format, and says in one line what it was not made for. */
static void test_vector_commands(void) {
    steer_error e = {0};
    steer_model *m = open_or_fail("weights/tiny-llama.bin");
    if (!m)
        return;
    steer_vector one = made_vector(m, 0), several = made_vector(m, 1);
    char dir[64], answers[3][1024], arguments[512];
    snprintf(dir, sizeof dir, "%s", temporary);
    one.layer = 3;
    for (int i = 0; i < one.d; i++)
        one.v[i] *= 8;
    steer_status s = steer_vector_save(&one, in_temporary("one.vec"), &e);
    s = s ? s : steer_vector_save(&one, in_temporary("one.gguf"), &e);
    s = s ? s : steer_vector_save(&one, in_temporary("one.npy"), &e);
    s = s ? s : steer_vector_save(&several, in_temporary("several.gguf"), &e);
    CHECK_THAT(!s, "%s", e.text);

    static const refused_command refused[] = {
        {2, "generate weights/tiny-llama.bin x --foreign", "--vector"},
        {2, "generate weights/tiny-llama.bin x --site 1,-1", "--vector"},
        {2, "generate weights/tiny-llama.bin x --vector %s/one.vec --site auto", "reproduce"},
        {1, "generate weights/tiny-llama.bin x --vector %s/one.vec --site 6,-1", "blocks 0 to 5"},
        {2, "generate weights/tiny-llama.bin x --vector %s/several.gguf --ablate zero",
         "--site L,P"},
        {2, "patch weights/tiny-llama.bin --vector %s/several.gguf", "--site L,P"},
        {1, "generate weights/tiny-llama.bin x --vector %s/one.npy", "--foreign"},
        {1, "generate weights/tiny-gemma.bin x --vector %s/one.gguf", "--foreign"},
        {2, "generate weights/tiny-llama.bin x --vector %s/one.npy --foreign --ablate mean",
         "means"},
        {1, "vector weights/tiny-llama.bin --train 8 --site 3,-1 --out %s/no/w.gguf", "no/w.gguf"},
    };

    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++)
        command_is_refused(&refused[i], dir);

    static const struct {
        const char *arguments, *said; /* on stderr, in one line; NULL: nothing */
    } fine[] = {
        {"--vector %s/one.vec", NULL},
        {"--vector %s/one.gguf", NULL},
        {"--vector %s/one.npy --foreign --site 3,-1 --coeff 1.5",
         "does not name, taken for tiny-llama as --foreign says; block 3, coefficient 1"},
        {"--vector %s/several.gguf --freeze v", NULL},
        {"--vector %s/several.gguf --site 1,-2 --ablate mean", NULL},
    };

    for (size_t i = 0; i < sizeof fine / sizeof *fine; i++) {
        int n = snprintf(arguments, sizeof arguments,
                         "generate weights/tiny-llama.bin \"a cake\" --max-new 6 --quiet ");
        snprintf(arguments + n, sizeof arguments - (size_t)n, fine[i].arguments, dir);
        int status = run_program(PROGRAM, arguments, "");
        CHECK_THAT(!status, "`steer %s`: status %d, \"%.300s\"", arguments, status, complained);
        CHECK_THAT(fine[i].said ? lines_of(complained) == 1 && strstr(complained, fine[i].said)
                                : !*complained,
                   "`steer %s`: \"%.300s\"", arguments, complained);
        if (i < 3)
            snprintf(answers[i], sizeof answers[i], "%.1000s", shown);
    }
    CHECK_THAT(!strcmp(answers[0], answers[1]) && !strcmp(answers[0], answers[2]),
               "the formats steer differently: %s%s%s", answers[0], answers[1], answers[2]);

    snprintf(arguments, sizeof arguments,
             "vector weights/tiny-llama.bin --train 8 --site 3,-1 --coeff 2 --out %s/made.gguf",
             dir);
    int status = run_program(PROGRAM, arguments, "");
    CHECK_THAT(!status && strstr(shown, "not multiplied in") && strstr(shown, "made.gguf:2"),
               "%.400s", shown);
    snprintf(
        arguments, sizeof arguments,
        "generate weights/tiny-gemma.bin \"a cake\" --max-new 2 --foreign --vector %s/made.gguf",
        dir);
    status = run_program(PROGRAM, arguments, "");
    CHECK_THAT(!status && strstr(complained, "made for tiny-llama, taken for tiny-gemma"), "%.400s",
               complained);
    steer_vector_free(&one);
    steer_vector_free(&several);
    steer_close(m);
}
