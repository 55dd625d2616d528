/* Model files and vector files: whole, damaged, hostile; and how a file is read. */
#include <pthread.h>

/* ---------------------------------------------------------------- damaged model files */

/* Use an open model wherever its tables are read: every call ends well or says why not. */
static void exercise(steer_model *m, const char *what) {
    const char *turn = "the thing";
    int ids[256], answer[2];
    char out[256];
    steer_error e = {0};
    long n = steer_encode(m, hard_text, sizeof hard_text - 1, ids, 256, &e);
    CHECK_THAT(n > 0 && n < (long)sizeof hard_text, "%s: %ld tokens: %s", what, n, e.text);
    for (long i = 0; i < n; i++)
        CHECK_THAT(ids[i] >= 0 && ids[i] < m->config.vocab, "%s: id %d", what, ids[i]);
    if (n > 0)
        steer_decode(m, ids, (int)n, out, sizeof out);
    is_coherent(m, judged_text, "x");
    long k = steer_chat(m, NULL, &turn, 1, ids, 256, &e);
    CHECK_THAT(k > 0 || *e.text, "%s: no tokens and no message", what);
    if (k < 1)
        return;
    k = k > 10 ? 10 : k;
    steer_limits l = {.streams = 2, .positions = 16, .rows = 16};
    steer_context *c = steer_context_new(m, &l, &e);
    CHECK_THAT(c || *e.text, "%s: no context and no message", what);
    if (!c)
        return;
    steer_job job = {.prompt = ids, .n_prompt = (int)k, .max_new = 2, .out = answer};
    steer_row rows[10];
    steer_begin(c, 0, NULL, -1, NULL, NULL);
    put_rows(rows, &job, 0, -1, 0, (int)k);
    rows[k - 1].logits = 1;
    steer_status s = steer_run(c, rows, (int)k, NULL, &e);
    CHECK_THAT(!s || *e.text, "%s: status %d without a message", what, s);
    const float *logits = s ? NULL : steer_logits(c, (int)k - 1);
    for (int i = 0; logits && i < m->config.vocab; i++)
        if (!isfinite(logits[i])) {
            CHECK_THAT(0, "%s: logit %d is %g and the run is content", what, i, (double)logits[i]);
            break;
        }
    s = steer_generate(c, &job, 1, NULL, NULL, &e);
    CHECK_THAT(!s || *e.text, "%s: status %d without a message", what, s);
    steer_context_free(c);
}

/* Open bytes that may be broken: refused with a message, or a model that can be used. 1 when
 * opened. */
static int survives(const unsigned char *bytes, size_t size, const char *what) {
    steer_error e = {0};
    steer_model *m = steer_open_memory(bytes, size, "broken", &e);
    if (!m) {
        CHECK_THAT(e.code && strlen(e.text) > 10, "%s: refused without a message", what);
        return 0;
    }
    exercise(m, what);
    steer_close(m);
    return 1;
}

enum { SMALL_FILES = 3 };

static const struct {
    dtype type;
    int kind;
    const char *name;
} small_files[] = {{F32, 0, "f32"}, {Q8, SMALL_GEMMA, "q8 gemma"}, {BF16, SMALL_NFC, "bf16 nfc"}};

static void test_small_files(void) {
    for (int k = 0; k < SMALL_FILES; k++) {
        image f = small_image(small_files[k].type, small_files[k].kind);
        const char *path = in_temporary("small.bin");
        CHECK_THAT(survives(f.bytes, f.size, small_files[k].name), "%s: does not open",
                   small_files[k].name);
        write_bytes(path, f.bytes, f.size);
        steer_error e = {0};
        steer_model *m = steer_open(path, 0, &e), *same = open_image(&f);
        CHECK_THAT(m, "%s", e.text);
        if (m && same) {
            exercise(m, small_files[k].name);
            CHECK_THAT(!steer_verify(m, &e), "%s", e.text);
            CHECK_THAT(m->config.fingerprint == same->config.fingerprint && m->config.fingerprint,
                       "fingerprint");
            CHECK_THAT(steer_eoi(m) >= 3, "%d end-of-instruction tokens", steer_eoi(m));
            steer_limits l = {0};
            size_t bytes = steer_context_bytes(m, &l);
            steer_context *c = steer_context_new(m, &l, &e);
            CHECK_THAT(c && bytes > 0 && c->limit.positions == 64, "a context of default size: %s",
                       e.text);
            steer_context_free(c);
        }
        steer_close(m);
        steer_close(same);
        /* One changed weight: it opens, but is not what it was, and steer_verify sees it. */
        dice = 5;
        for (int i = 0; i < 200; i++) {
            size_t at = f.data + (size_t)roll((int)(f.size - f.data));
            f.bytes[at] ^= (unsigned char)(1 << roll(8));
            m = steer_open_memory(f.bytes, f.size, "flipped", NULL);
            CHECK_THAT(m && steer_verify(m, &e) == STEER_EFORMAT && *e.text,
                       "a flipped bit at byte %zu is not seen", at);
            steer_close(m);
            seal(&f); /* and becomes part of the next file, with another fingerprint */
        }
        free(f.bytes);
    }
    steer_error e = {0};
    const char *const bad[] = {in_temporary("missing.bin"), temporary, "/dev/null", ""};
    for (int i = 0; i < 4; i++) {
        CHECK_THAT(!steer_open(bad[i], 0, &e) && e.code == STEER_EIO && *e.text, "\"%s\": %s",
                   bad[i], e.text);
        CHECK_THAT(!steer_open(bad[i], 0, NULL), "without an error to fill in");
    }
    static const uint32_t aligned; /* the bytes of a model lie at a multiple of 4 */
    CHECK_THAT(!steer_open_memory(&aligned, 0, "nothing", &e) && e.code == STEER_EFORMAT,
               "nothing: %s", e.text);
}

static void test_truncations(void) {
    for (int k = 0; k < SMALL_FILES; k++) {
        image f = small_image(small_files[k].type, small_files[k].kind);
        const char *path = in_temporary("cut.bin");
        write_bytes(path, f.bytes, f.size);
        for (size_t n = f.size; n-- > 0;) { /* from memory that ends there, and from a file */
            unsigned char *cut = malloc(n ? n : 1);
            memcpy(cut, f.bytes, n);
            steer_error e = {0};
            steer_model *m = steer_open_memory(cut, n, "cut", &e);
            CHECK_THAT(!m && e.code && strstr(e.text, "cut"), "%zu bytes of %zu: %s", n, f.size,
                       e.text);
            free(cut);
            memset(&e, 0, sizeof e);
            CHECK_THAT(!truncate(path, (off_t)n), "%s", strerror(errno));
            m = steer_open(path, 0, &e);
            CHECK_THAT(!m && e.code && strstr(e.text, "cut.bin"), "a file of %zu bytes of %zu: %s",
                       n, f.size, e.text);
        }
        unsigned char *longer = zeros(f.size + ALIGN, 1);
        memcpy(longer, f.bytes, f.size);
        for (size_t extra = 1; extra <= ALIGN; extra++)
            CHECK_THAT(!survives(longer, f.size + extra, "longer"),
                       "%zu bytes too many are accepted", extra);
        /* Cut, and its size and checksum written anew: the tables must notice by themselves. */
        for (size_t n = f.size - 1; n >= HEAD; n -= n > f.data ? 37 : 1) {
            uint64_t stated = n;
            unsigned char *cut = malloc(n);
            memcpy(cut, f.bytes, n);
            memcpy(cut + 16, &stated, 8);
            if (n < f.data)
                memcpy(cut + 32, &stated, 8);
            seal_head(cut, n);
            CHECK_THAT(!survives(cut, n, "cut and sealed"), "%zu bytes of %zu with a true checksum",
                       n, f.size);
            free(cut);
        }
        free(longer);
        free(f.bytes);
    }
}

/* Every bit of header and directory; beyond them, in the tokenizer's sections, one bit of every
 * byte. */
static void test_bit_flips(void) {
    dice = 6;
    for (int k = 0; k < SMALL_FILES; k++) {
        image f = small_image(small_files[k].type, small_files[k].kind);
        int opened = 0, tried = 0;
        char what[64];
        for (size_t at = 0; at < f.data; at++)
            for (int bit = 0; bit < 8; bit++) {
                if (at >= f.sections && bit != (int)(at * 5 % 8))
                    continue;
                unsigned char *copy = malloc(f.size); /* exact, for the sanitizer */
                memcpy(copy, f.bytes, f.size);
                copy[at] ^= (unsigned char)(1 << bit);
                steer_error e = {0};
                steer_model *m = steer_open_memory(copy, f.size, "flipped", &e);
                CHECK_THAT(!m && e.code && strlen(e.text) > 10, "byte %zu, bit %d is not seen", at,
                           bit);
                steer_close(m);
                snprintf(what, sizeof what, "%s: sealed flip of byte %zu, bit %d",
                         small_files[k].name, at, bit);
                seal_head(copy, f.size);
                tried++;
                opened += survives(copy, f.size, what);
                free(copy);
            }
        printf("  %s: of %d flips with a true checksum %d open, and run\n", small_files[k].name,
               tried, opened);
        CHECK_THAT(opened > 0 && opened < tried, "%d of %d", opened, tried);
        free(f.bytes);
    }
}

/* The values at which sizes and signs overflow, in every field of header and directory, one at a
 * time and, for the shape, in pairs. */
static void test_boundaries(void) {
    static const uint32_t values[] = {0,
                                      1,
                                      2,
                                      1u << 15,
                                      (1u << 16) - 1,
                                      1u << 16,
                                      (1u << 16) + 1,
                                      (1u << 24) + 1,
                                      0x7FFFFFFF,
                                      0x80000000,
                                      0x80000001,
                                      0xFFFFFFFF};

    enum { SPECIAL_VALUES = sizeof values / sizeof *values };

    char what[80];
    for (int k = 0; k < SMALL_FILES; k++) {
        image f = small_image(small_files[k].type, small_files[k].kind);
        unsigned char *copy = malloc(f.size);
        memcpy(copy, f.bytes, f.size);
        for (size_t at = 0; at < f.sections; at += 4)
            for (int v = 0; v < SPECIAL_VALUES; v++) {
                memcpy(copy + at, &values[v], 4);
                seal_head(copy, f.size);
                snprintf(what, sizeof what, "%s: byte %zu is %u", small_files[k].name, at,
                         values[v]);
                survives(copy, f.size, what);
                memcpy(copy, f.bytes, f.data);
            }
        for (size_t a = 104; a < 160; a += 4)
            for (size_t b = 104; b < a; b += 4)
                for (int v = 0; v < SPECIAL_VALUES; v++)
                    for (int w = 0; w < SPECIAL_VALUES; w++) {
                        memcpy(copy + a, &values[v], 4);
                        memcpy(copy + b, &values[w], 4);
                        seal_head(copy, f.size);
                        snprintf(what, sizeof what, "%s: bytes %zu, %zu are %u, %u",
                                 small_files[k].name, a, b, values[v], values[w]);
                        survives(copy, f.size, what);
                        memcpy(copy, f.bytes, f.data);
                    }
        free(copy);
        free(f.bytes);
    }
}

/* Weights that are no numbers: the file's checksum may be true, the run must say so. */
static void test_not_finite(void) {
    static const float values[] = {NAN, INFINITY, -INFINITY};
    image f = small_image(F32, 0);
    steer_model *good = open_image(&f);
    if (!good)
        return;

    const struct {
        const char *name;
        const void *data;
    } places[] = {{"embedding", (const float *)good->embed.data + 16 * 'a'},
                  {"norm", good->blocks[0].attn_norm},
                  {"angles", good->rope_freq},
                  {"query", good->blocks[0].q.data},
                  {"value", good->blocks[1].v.data},
                  {"MLP", good->blocks[1].down.data},
                  {"final norm", good->final_norm}};

    for (size_t i = 0; i < sizeof places / sizeof *places; i++)
        for (int v = 0; v < 3; v++) {
            float *at = (float *)(f.bytes + ((const unsigned char *)places[i].data - f.bytes)),
                  kept = *at;
            *at = values[v];
            int prompt[] = {'a', 'a', 'b'}, answer[2];
            steer_error e = {0};
            steer_job job = {.prompt = prompt, .n_prompt = 3, .max_new = 2, .out = answer};
            steer_limits l = {.streams = 1, .positions = 8, .rows = 8};
            steer_context *c = steer_context_new(good, &l, &e);
            steer_status s = steer_generate(c, &job, 1, NULL, NULL, &e);
            CHECK_THAT(s == STEER_ENONFINITE && *e.text, "%s with %g: status %d", places[i].name,
                       (double)values[v], s);
            steer_context_free(c);
            *at = kept;
        }
    steer_close(good);
    free(f.bytes);
    f = small_image(F32, SMALL_GEMMA); /* untied: one token's logit alone is not a number */
    good = open_image(&f);
    if (!good)
        return;
    *(float *)(f.bytes + ((const unsigned char *)good->unembed.data - f.bytes) + 4 * 16 * 7) = NAN;
    steer_limits l = {.streams = 1, .positions = 8, .rows = 8};
    steer_context *c = steer_context_new(good, &l, NULL);
    steer_begin(c, 0, NULL, -1, NULL, NULL);
    steer_row row = {0, 0, 'a', 1, 0};
    steer_status s = steer_run(c, &row, 1, NULL, NULL);
    CHECK_THAT(s == STEER_ENONFINITE, "the logit of token 7 is a NaN: status %d", s);
    steer_context_free(c);
    steer_close(good);
    free(f.bytes);
}

/* ---------------------------------------------------------------- vector files */

/* Load a vector file of these bytes; it must be refused with this word in the message (NULL:
 * any). */
static void refused_vector(const steer_model *m, const unsigned char *bytes, size_t n,
                           steer_status code, const char *word, const char *what) {
    const char *path = in_temporary("broken.vec");
    steer_vector v;
    steer_error e = {0};
    write_bytes(path, bytes, n);
    steer_status s = steer_vector_load(&v, path, m, 0, &e);
    CHECK_THAT(s && (!code || s == code) && s == e.code && strlen(e.text) > 10 &&
                   (!word || strstr(e.text, word)),
               "%s: status %d, \"%s\"", what, s, e.text);
    CHECK_THAT(!v.v && !v.keep, "%s: a refused vector keeps memory", what);
    if (!s)
        steer_vector_free(&v);
}

/* Every flipped bit is refused; with a true checksum it is refused, or what opens has finite
 * numbers and is the same from memory. */
static void check_flipped_vectors(const steer_model *m, const unsigned char *bytes, size_t n,
                                  const steer_vector *v) {
    steer_vector w;
    steer_error e = {0};
    char what[64];
    unsigned char *copy = malloc(n + 1);
    int opened = 0;
    for (size_t at = 0; at < n; at++)
        for (int bit = 0; bit < 8; bit++) {
            snprintf(what, sizeof what, "byte %zu, bit %d", at, bit);
            memcpy(copy, bytes, n);
            copy[at] ^= (unsigned char)(1 << bit);
            refused_vector(m, copy, n, STEER_EFORMAT, NULL, what);
            seal_vector(copy, n); /* with a true checksum: refused, or finite numbers */
            const char *again = in_temporary("sealed.vec");
            write_bytes(again, copy, n);
            steer_status s = steer_vector_load(&w, again, m, 0, &e);
            for (int i = 0; !s && i < w.d; i++)
                CHECK_THAT(isfinite(w.v[i]), "%s: number %d", what, i);
            steer_vector own; /* from memory, at an odd address, it is the same */
            memmove(copy + 1, copy, n);
            CHECK_THAT(steer_vector_load_memory(&own, copy + 1, n, again, m, 0, NULL) == s &&
                           (s || !memcmp(own.v, w.v, sizeof *w.v * (size_t)w.d)),
                       "%s: another vector from memory", what);
            steer_vector_free(&own);
            CHECK_THAT(s || (w.layer >= 0 && w.layer < m->config.layers && isfinite(w.coeff)), "%s",
                       what);
            if (!s) {
                opened++;
                steer_vector_free(&w);
            }
        }
    CHECK_THAT(opened > 8 * 4 * v->d / 2, "only %d sealed flips open", opened);
    free(copy);
}

/* Every truncation, every wrong field of a vector's file, numbers that are none;
 * other models' vectors, and what is none. */
static void check_refused_vectors(const steer_model *m, const steer_model *wide,
                                  const steer_model *near_twin, const image *file,
                                  const unsigned char *bytes, size_t n) {
    static const struct {
        size_t at;
        uint32_t value;
        const char *word;
    } fields[] = {{24, 17, "width"},
                  {28, 3, "blocks"},
                  {32, 1, "operation"},
                  {36, 1, "site"},
                  {40, 2, "block"},
                  {40, 0x80000000, "block"},
                  {48, 0x7FC00000, "coefficient"},
                  {48, 0x7F800000, "coefficient"},
                  {52, 5, "template"},
                  {56, 5, "fingerprint"},
                  {60, 5, "fingerprint"},
                  {24, 0x80000000, "width"},
                  {28, 0xFFFFFFFF, "blocks"},
                  {152, 2, "operation"},
                  {156, 2, "operation"}};

    enum { IDENTITY_AT = 144 };

    unsigned char *copy = malloc(n + 1);
    char what[64];
    for (size_t k = 0; k < n; k++) {
        snprintf(what, sizeof what, "%zu bytes of %zu", k, n);
        refused_vector(m, bytes, k, 0, NULL, what);
    }
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
        memcpy(copy, bytes, n);
        memset(copy + IDENTITY_AT, 0, 8); /* so that the fingerprint alone tells */
        memcpy(copy + fields[i].at, &fields[i].value, 4);
        seal_vector(copy, n);
        refused_vector(m, copy, n, STEER_EMISMATCH, fields[i].word, fields[i].word);
    }
    for (size_t at = VECTOR_HEAD; at < n; at += 4 * 5) { /* no number */
        static const uint32_t nan_bits[] = {0x7FC00000, 0x7F800000, 0xFF800000};
        memcpy(copy, bytes, n);
        memcpy(copy + at, &nan_bits[at / 20 % 3], 4);
        seal_vector(copy, n);
        refused_vector(m, copy, n, STEER_ENONFINITE, "finite", "a NaN");
    }

    /* This model's vector with means of more blocks than it has, which foreign ones may have. */
    enum { MORE = 512 };

    size_t large = VECTOR_HEAD + 4 * ((size_t)m->config.d + 3 * MORE);
    unsigned char *longer = zeros(large, 1);
    uint32_t blocks = MORE;
    memcpy(longer, bytes, n);
    memcpy(longer + 16, &(uint64_t){large}, 8);
    memcpy(longer + 28, &blocks, 4);
    seal_vector(longer, large);
    steer_vector v;
    steer_error e = {0};
    CHECK_THAT(steer_vector_load_memory(&v, longer, large, "longer", m, STEER_FOREIGN, &e) ==
                       STEER_EMISMATCH &&
                   strstr(e.text, "blocks"),
               "means of %d blocks: %s", MORE, e.text);
    free(longer);

    memcpy(copy, bytes, n);
    copy[n] = 0;

    const struct {
        const char *what, *word;
        const steer_model *m;
        const unsigned char *bytes;
        size_t n;
        steer_status code;
    } others[] = {
        {"one byte more", NULL, m, copy, n + 1, STEER_EFORMAT},
        {"a model as a vector", NULL, m, file->bytes, file->size, STEER_EFORMAT},
        {"another width", "width", wide, bytes, n, STEER_EMISMATCH},
        {"a model of the same shape", "fingerprint", near_twin, bytes, n, STEER_EMISMATCH}};

    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        refused_vector(others[i].m, others[i].bytes, others[i].n, others[i].code, others[i].word,
                       others[i].what);
    free(copy);
}

/* Paths that can't be written or read; nothing is left behind. */
static void check_vector_paths(const steer_model *m, const steer_vector *v) {
    const struct {
        const char *path;
        int write;
    } tried[] = {
        {temporary, 1},    {in_temporary("no/such/folder.vec"), 1}, {"/dev/null/x", 1}, {"", 1},
        {temporary, 0},    {in_temporary("no/such/folder.vec"), 0}, {"/dev/null/x", 0}, {"", 0},
        {"missing.vec", 0}};

    for (size_t i = 0; i < sizeof tried / sizeof *tried; i++) {
        const char *path = tried[i].path;
        char partial[200];
        steer_vector w;
        steer_error e = {0};
        snprintf(partial, sizeof partial, "%s.part", path);
        steer_status s =
            tried[i].write ? steer_vector_save(v, path, &e) : steer_vector_load(&w, path, m, 0, &e);
        check_refusal(tried[i].write ? "written" : "read", s, STEER_EIO, &e, path);
        CHECK_THAT(*e.text && !exists(partial), "\"%s\": %s is left", e.text, partial);
        s = tried[i].write ? steer_vector_save(v, path, NULL)
                           : steer_vector_load(&w, path, m, 0, NULL);
        CHECK_THAT(s == STEER_EIO, "%s, without an error to fill in: status %d", path, s);
    }
}

static void test_vector_files(void) {
    image f = small_image(F32, 0), other = small_image(Q8, SMALL_GEMMA), twin = small_image(F32, 0);
    steer_model *m = open_image(&f), *wide = open_image(&other);
    twin.bytes[(const unsigned char *)m->final_norm - f.bytes] ^= 1; /* the same shape */
    seal(&twin);
    steer_model *near_twin = open_image(&twin);
    if (!m || !wide || !near_twin)
        return;
    steer_vector v = random_dim(m, 1), w;
    steer_error e = {0};
    char path[128];
    snprintf(path, sizeof path, "%s", in_temporary("good.vec"));
    CHECK_THAT(!steer_vector_save(&v, path, &e), "%s", e.text);
    CHECK_THAT(!exists(in_temporary("good.vec.part")), "a .part file is left");
    CHECK_THAT(!steer_vector_load(&w, path, m, 0, &e), "%s", e.text);
    CHECK_THAT(w.d == v.d && w.layers == v.layers && w.layer == v.layer && w.pos == v.pos &&
                   w.coeff == v.coeff && w.fingerprint == v.fingerprint &&
                   w.template_crc == v.template_crc && !strcmp(w.method, "dim") &&
                   !strcmp(w.model, m->config.name),
               "the header does not come back");
    CHECK_THAT(!memcmp(w.v, v.v, sizeof(float) * (size_t)v.d) &&
                   !memcmp(w.keep, v.keep, sizeof(float) * 3 * (size_t)v.layers),
               "the numbers do not come back");
    steer_vector_free(&w);
    size_t n;
    unsigned char *bytes = (unsigned char *)read_file(path, &n, &e);
    CHECK_THAT(n == VECTOR_HEAD + 4 * ((size_t)v.d + 3 * (size_t)v.layers), "%zu bytes", n);
    check_flipped_vectors(m, bytes, n, &v);
    check_refused_vectors(m, wide, near_twin, &f, bytes, n);
    check_vector_paths(m, &v);
    steer_status s = steer_vector_load(&w, path, near_twin, 0, NULL);
    CHECK_THAT(s == STEER_EMISMATCH, "without an error to fill in: status %d", s);
    steer_vector_free(&v);
    free(bytes);
    steer_close(m);
    steer_close(wide);
    steer_close(near_twin);
    free(f.bytes);
    free(other.bytes);
    free(twin.bytes);
}

/* ------------------------------------------------ how a file is read, what its numbers promise */

/* ---------------------------------------------------------------- read into memory, or mapped */

/* Logits [vocab] after three bytes. */
static float *few_logits(const steer_model *m) {
    float *copy = NULL;
    steer_error e = {0};
    steer_context *c = steer_context_new(m, &(steer_limits){.positions = 8}, &e);
    steer_row rows[] = {{0, 0, 'a', 0, 0}, {0, 1, 'n', 0, 0}, {0, 2, 'd', 1, 0}};
    steer_status s = c ? steer_begin(c, 0, NULL, -1, NULL, &e) : e.code;
    s = s ? s : steer_run(c, rows, 3, NULL, &e);
    CHECK_THAT(!s, "%s", e.text);
    if (!s) {
        copy = malloc(sizeof *copy * (size_t)m->config.vocab);
        copy_floats(copy, steer_logits(c, 2), (size_t)m->config.vocab);
    }
    steer_context_free(c);
    return copy;
}

static void run_few(void *model) {
    free(few_logits(model));
}

static void test_read_into_memory(void) {
    for (int k = 0; k < SMALL_FILES; k++) {
        image f = small_image(small_files[k].type, small_files[k].kind);
        const char *path = in_temporary("read.bin");
        steer_error e = {0};
        write_bytes(path, f.bytes, f.size);
        steer_model *read = steer_open(path, STEER_READ, &e), *borrowed = open_image(&f);
        CHECK_THAT(read, "%s", e.text);

        /* Its file is cut, then gone: the model is the same, to the bit. */
        CHECK_THAT(!truncate(path, 0), "%s", strerror(errno));
        const char *ended = read ? in_child(run_few, read, 20) : NULL;
        CHECK_THAT(!ended, "%s: with its file truncated %s", small_files[k].name, ended);
        CHECK_THAT(!unlink(path), "%s", strerror(errno));
        if (read && borrowed) {
            float *a = few_logits(read), *b = few_logits(borrowed);
            CHECK_THAT(a && b && !memcmp(a, b, sizeof *a * (size_t)read->config.vocab),
                       "%s: other logits than the file's", small_files[k].name);
            CHECK_THAT(!steer_verify(read, &e), "%s", e.text);
            free(a);
            free(b);
        }
        steer_close(read);
        steer_close(borrowed);
        free(f.bytes);
    }

    /* What is refused when mapped is refused when read, and a flag that is none. */
    steer_error e = {0};
    const char *const bad[] = {in_temporary("missing.bin"), temporary, "/dev/null", ""};
    for (int i = 0; i < 4; i++) {
        steer_model *m = steer_open(bad[i], STEER_READ, &e);
        CHECK_THAT(!m && e.code == STEER_EIO && *e.text, "\"%s\": %s", bad[i], e.text);
    }
    const char *nothing = in_temporary("nothing.bin"); /* it can be read, and is no model */
    write_bytes(nothing, (const unsigned char *)"", 0);
    for (unsigned flags = 0; flags <= STEER_READ; flags++)
        CHECK_THAT(!steer_open(nothing, flags, &e) && e.code == STEER_EFORMAT &&
                       strstr(e.text, "empty"),
                   "an empty file: %s", e.text);
    CHECK_THAT(!steer_open("weights/tiny-llama.bin", 2, &e) && e.code == STEER_EARG, "%s", e.text);
}

/* A conversation of two messages, before the second of which the model's file is cut to nothing.
 * How `steer chat` ended; *answers: how often it answered. */
static int chat_over_a_cut(const char *flag, int *answers) {
    const char *path = in_temporary("cut-in-use.bin");
    int to[2], from[2], status = 0;
    size_t size;
    char *bytes = read_file("weights/tiny-llama.bin", &size, NULL), said[4096];
    unlink(path);
    write_bytes(path, bytes, size);
    free(bytes);
    CHECK_THAT(!pipe(to) && !pipe(from), "%s", strerror(errno));
    fflush(stdout);
    pid_t child = fork();
    if (!child) {
        dup2(to[0], 0);
        dup2(from[1], 1);
        dup2(from[1], 2);
        close(to[1]);
        close(from[0]);
        alarm(60);
        execl(PROGRAM, PROGRAM, "chat", path, "--max-new", "4", flag, (char *)NULL);
        _exit(127);
    }
    close(to[0]);
    close(from[1]);
    *answers = 0;
    for (int i = 0; i < 2; i++) { /* the first letter of an answer shows that the model is open */
        ssize_t n = write(to[1], "How do I bake a cake?\n", 22);
        for (int letters = 0; n > 0 && !letters;) {
            n = read(from[0], said, sizeof said);
            for (ssize_t k = 0; k < n; k++)
                letters |= isalpha((unsigned char)said[k]);
            *answers += letters != 0;
        }
        if (!i)
            CHECK_THAT(!truncate(path, 0), "%s", strerror(errno));
    }
    close(to[1]);
    while (read(from[0], said, sizeof said) > 0) {
    }
    close(from[0]);
    waitpid(child, &status, 0);
    return status;
}

static void test_no_mmap(void) {
    int answers, status;
    signal(SIGPIPE, SIG_IGN);
    status = chat_over_a_cut("--no-mmap", &answers);
    CHECK_THAT(status == 0 && answers == 2, "read: status %d after %d answers", status, answers);
    status = chat_over_a_cut(NULL, &answers); /* what README and steer.h warn of */
    CHECK_THAT(status != 0, "mapped: status %d after %d answers", status, answers);
    signal(SIGPIPE, SIG_DFL);
}

/* ---------------------------------------------------------------- compilers */

/* Of each compiler there is: each of these flags is refused, with the line to type, and only they
 * are. */
static void test_fast_math(void) {
    static const char *const compilers[] = {"cc", "gcc", "clang"};

    static const struct {
        const char *flags;
        int refused;
        const char *only; /* this compiler, as others name no macro for it; NULL: all */
    } tried[] = {{"-Ofast", 1, NULL},
                 {"-O3 -ffast-math", 1, NULL},
                 {"-ffinite-math-only", 1, NULL},
                 {"-O3 -freciprocal-math", 1, "gcc"},
                 {"-O3", 0, NULL}};

    int found = 0;
    for (size_t i = 0; i < sizeof compilers / sizeof *compilers; i++) {
        int status;
        char command[256];
        snprintf(command, sizeof command, "command -v %s", compilers[i]);
        free(output_of(command, &status));
        if (status)
            continue;

        found++;
        for (size_t k = 0; k < sizeof tried / sizeof *tried; k++) {
            if (tried[k].only && strcmp(tried[k].only, compilers[i]))
                continue;
            snprintf(command, sizeof command,
                     "%s -std=gnu11 %s -fsyntax-only -DSTEER_NO_MAIN steer.c 2>&1", compilers[i],
                     tried[k].flags);
            char *said = output_of(command, &status);
            CHECK_THAT(!status == !tried[k].refused, "%s ends with %d", command, status);
            CHECK_THAT(!tried[k].refused || (said && strstr(said, "type: cc -O3 -march=native")),
                       "%s says %s", command, said);
            free(said);
        }
    }
    CHECK_THAT(found, "no compiler to try");
}

/* ---------------------------------------------------------------- stack */

/* Every public function that does more than look something up, on a small model and, for rows of
 * several parts and panels, on one of the box. */
static void *call_everything(void *model) {
    const steer_model *m = model;
    steer_error e = {0};
    set_threads(1); /* of this thread */
    steer_prompts p = {0};
    steer_status s = steer_prompts_load(&p, m, "weights/harmful-val.txt", 4, &e);
    steer_limits l = {.streams = 6, .positions = p.n ? p.lengths[0] + 16 : 64};
    for (int i = 0; i < p.n; i++)
        l.positions = max_int(l.positions, p.lengths[i] + 16);
    steer_context *c = s ? NULL : steer_context_new(m, &l, &e);
    size_t means = (size_t)3 * (size_t)m->eoi * (size_t)m->config.layers * (size_t)m->config.d;
    double *mean = zeros(2 * means, sizeof *mean);
    steer_sums sums[2] = {{.sum = mean}, {.sum = mean + means, .count = 1}};
    int prompts = c && !steer_means(c, &p, NULL, 0, &sums[0], &e) ? sums[0].count : -1;
    CHECK_THAT(prompts == 4, "%s", e.text);
    if (prompts != 4)
        return NULL;

    steer_vector v = {0}, back = {0};
    for (size_t i = 0; i < means; i++)
        mean[means + i] = mean[i] * 0.5 + (double)(i % 7) * 0.01;
    s = steer_dim(&v, m, &sums[0], &sums[1], 1, -1, 1, &e);
    s = s ? s : steer_vector_save(&v, in_temporary("stack.vec"), &e);
    s = s ? s : steer_vector_load(&back, in_temporary("stack.vec"), m, 0, &e);

    int out[6][8];
    char text[256];
    changes plan = {.add = v.v, .coeff = 1, .layer = 1, .freeze = STEER_V};
    plan_of(&plan);
    steer_job jobs[6];
    for (int i = 0; i < 6; i++)
        jobs[i] = (steer_job){.prompt = p.tokens[i % 4],
                              .n_prompt = p.lengths[i % 4],
                              .max_new = 8,
                              .plan = i < 3 ? &plan.plan : NULL,
                              .temperature = 1,
                              .top_p = 0.9f,
                              .out = out[i]};
    s = s ? s : steer_generate(c, jobs, 6, NULL, NULL, &e);
    steer_decode(m, out[0], s ? 0 : jobs[0].n_out, text, sizeof text);

    int n = p.lengths[0];
    steer_tracer *t = s ? NULL : steer_tracer_new(m, 1, n, 5, 2, &e);
    steer_example x = {p.tokens[0], n, n - 4, 1, 1};
    changes frozen = {.freeze = STEER_QK};
    double F, *scores = zeros(t ? scores_width(t) : 1, sizeof *scores);
    double *node = zeros(t ? (size_t)t->graph.nodes : 1, sizeof *node);
    s = t ? attribute(t, &x, v.v, STEER_KL, 2, scores, &e) : e.code;
    s = s ? s : steer_patch_exactly(t, &x, v.v, node, NULL, &e);
    s = s ? s : steer_faithfulness(t, &x, v.v, plan_of(&frozen), 1, &F, NULL, &e);
    CHECK_THAT(!s, "%s", e.text);

    steer_tracer_free(t);
    steer_context_free(c);
    steer_vector_free(&v);
    steer_vector_free(&back);
    steer_prompts_free(&p);
    free(mean);
    free(scores);
    free(node);
    return NULL;
}

/* What steer.h says that a thread needs is enough: a painted stack shows how deep it went. */
static void test_stack(void) {
    enum { SAID = 96 << 10, GIVEN = 1 << 20, PAINT = 0xA5 };

    if (SANITIZED) {
        printf("  not measured: the sanitizer's frames are larger\n");
        return;
    }
    static const char *const models[] = {"weights/tiny-llama.bin", "weights/tiny-gemma.bin"};
    size_t deepest = 0;
    for (int i = 0; i < 2; i++) {
        steer_model *m = open_or_fail(models[i]);
        unsigned char *stack =
            mmap(NULL, GIVEN, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        pthread_attr_t a;
        pthread_t thread;
        memset(stack, PAINT, GIVEN);
        pthread_attr_init(&a);
        int ok = m && !pthread_attr_setstack(&a, stack, GIVEN) &&
                 !pthread_create(&thread, &a, call_everything, m) && !pthread_join(thread, NULL);
        CHECK_THAT(ok, "no thread of %d bytes of stack", GIVEN);
        size_t untouched = 0;
        while (ok && untouched < GIVEN && stack[untouched] == PAINT)
            untouched++;
        if (ok && GIVEN - untouched > deepest)
            deepest = GIVEN - untouched;
        munmap(stack, GIVEN);
        pthread_attr_destroy(&a);
        steer_close(m);
    }
    printf("  %.1f KB of stack\n", (double)deepest / 1024);
    CHECK_THAT(deepest <= SAID, "%zu bytes of stack, %d are said to do", deepest, SAID);
}

/* ---------------------------------------------------------------- what a model file promises */

enum { CONFIG_AT = 104, SECTIONS_AT = 280 }; /* in the header */

static uint64_t section_at(const image *f, int section, uint64_t *bytes) {
    uint64_t place[2];
    memcpy(place, f->bytes + SECTIONS_AT + 16 * section, sizeof place);
    *bytes = place[1];
    return place[0];
}

/* In a section, the first `n` bytes that equal `from` become `to`; sealed anew. */
static void patch_bytes(image *f, int section, const void *from, const void *to, size_t n) {
    uint64_t bytes, at = section_at(f, section, &bytes);
    unsigned char *found = memmem(f->bytes + at, (size_t)bytes, from, n);
    CHECK_THAT(found, "section %d does not hold what is to be changed", section);
    if (found)
        memcpy(found, to, n);
    seal(f);
}

static void patch_words(image *f, int section, const uint32_t from[3], const uint32_t to[3]) {
    patch_bytes(f, section, from, to, 12);
}

static void patch_config(image *f, size_t field, uint32_t value) {
    memcpy(f->bytes + CONFIG_AT + field, &value, 4);
    seal(f);
}

#define FIELD(name) offsetof(steer_config, name)

/* The file with other bytes as one of its sections: what is behind it moves. */
static void replace_section(image *f, int section, const void *p, size_t n) {
    image made = {.bytes = zeros(1 << 19, 1), .size = f->sections, .sections = f->sections};
    memcpy(made.bytes, f->bytes, f->sections);
    for (int i = 0; i < SECTIONS; i++) {
        uint64_t bytes, at = section_at(f, i, &bytes);
        uint64_t place[2] = {made.size, i == section ? n : bytes};
        emit(&made, i == section ? p : f->bytes + at, (size_t)place[1]);
        memcpy(made.bytes + SECTIONS_AT + 16 * i, place, sizeof place);
        made.size = round_up(made.size, ALIGN);
    }
    made.data = made.size;
    emit(&made, f->bytes + f->data, f->size - f->data);
    uint32_t tensors;
    memcpy(&tensors, made.bytes + 12, 4);
    for (uint32_t i = 0; i < tensors; i++) {
        unsigned char *offset = made.bytes + HEAD + RECORD_BYTES * i + 16;
        uint64_t at;
        memcpy(&at, offset, 8);
        at = at - f->data + made.data;
        memcpy(offset, &at, 8);
    }
    uint64_t size = made.size, data = made.data;
    memcpy(made.bytes + 16, &size, 8);
    memcpy(made.bytes + 32, &data, 8);
    seal(&made);
    free(f->bytes);
    *f = made;
}

/* The file is refused as damaged, and the sentence holds this. */
static void check_refused(image *f, const char *word) {
    unsigned char *exact = malloc(f->size); /* for the sanitizer */
    memcpy(exact, f->bytes, f->size);
    steer_error e = {0};
    steer_model *m = steer_open_memory(exact, f->size, "broken.bin", &e);
    CHECK_THAT(!m && e.code == STEER_EFORMAT && strstr(e.text, word) &&
                   !strncmp(e.text, "broken.bin: ", 12) && strstr(e.text, EXPORT_AGAIN),
               "where \"%s\" is wanted: %s", word, m ? "it opens" : e.text);
    steer_close(m);
    free(exact);
    free(f->bytes);
    *f = (image){0};
}

static void encode_space(void *model) {
    int ids[64];
    steer_encode(model, "a 1 ", 4, ids, 64, NULL);
}

/* Two files that passed every check and led outside of arrays. */
static void test_overflows(void) {
    /* A special token's name goes on behind a zero: the template's end was stepped over, and its
     * next part written behind the memory for two. */
    char template[82] = "\0\0\0\0\0\n"; /* after it a long assistant_pre, an empty last part */
    memset(template + 7, 'y', 73);
    image f = small_image(F32, 0);
    patch_bytes(&f, TOKEN_BYTES, "<assistant>", "\n\0assistant", 11);
    replace_section(&f, TEMPLATE, template, sizeof template);
    write_bytes(in_temporary("special.bin"), f.bytes, f.size);
    check_refused(&f, "special token 268 has a zero byte");

    /* A space that is a mark: a run of no spaces, whose last one is before the text. */
    f = small_image(F32, SMALL_NFC);
    patch_words(&f, UNICODE, (uint32_t[]){32, 32, SPACE}, (uint32_t[]){32, 32, MARK});
    write_bytes(in_temporary("space.bin"), f.bytes, f.size);
    steer_model *m = steer_open_memory(f.bytes, f.size, "space", NULL);
    const char *ended = m ? in_child(encode_space, m, 5) : NULL;
    CHECK_THAT(!ended, "a text with spaces: %s", ended);
    steer_close(m);
    check_refused(&f, "U+0020");
    char command[256];
    for (int i = 0; i < 2; i++) { /* as a user meets them */
        int status;
        snprintf(command, sizeof command, "%s tokenize %s 'a 1 ' 2>&1", PROGRAM,
                 in_temporary(i ? "space.bin" : "special.bin"));
        char *said = output_of(command, &status);
        int lines = 0;
        for (char *c = said; c && *c; c++)
            lines += *c == '\n';
        CHECK_THAT(WIFEXITED(status) && WEXITSTATUS(status) == 1 && lines == 1 &&
                       !strncmp(said, "steer: ", 7),
                   "%s ends with %d: %s", command, status, said);
        free(said);
    }
}

/* Everything that later code relies on, each broken alone. */
static void test_promises(void) {
    static const struct {
        uint32_t from[3], to[3];
        const char *word;
    } classes[] = {{{9, 13, SPACE}, {11, 13, SPACE}, "U+0009"},
                   {{9, 13, SPACE}, {9, 12, SPACE}, "U+000D"},
                   {{32, 32, SPACE}, {32, 33, SPACE}, "U+0021"},
                   {{'0', '9', NUMBER}, {'1', '9', NUMBER}, "U+0030"},
                   {{'a', 'z', LETTER}, {'a', 'y', LETTER}, "U+007A"},
                   {{0xA0, 0xA0, SPACE}, {0xA1, 0xA0, SPACE}, "Unicode classes"},
                   {{0xC0, 0x24F, LETTER}, {0xA0, 0x24F, LETTER}, "Unicode classes"},
                   {{0x300, 0x36F, MARK}, {0x300, 0x36F, 0}, "Unicode classes"},
                   {{0x300, 0x36F, MARK}, {0x300, 0x36F, 5}, "Unicode classes"},
                   {{0xAC00, 0xD7A3, LETTER}, {0xAC00, 0x110000, LETTER}, "Unicode classes"}},
      normal[] = {{{0x300, 0x314, 230}, {0x300, 0x314, 256}, "combining classes"},
                  {{0x300, 0x314, 230}, {0x300, 0x314, 0}, "combining classes"},
                  {{0x300, 0x314, 230}, {0x300, 0x323, 230}, "combining classes"},
                  {{0x327, 0x327, 202}, {0x327, 0x326, 202}, "combining classes"},
                  {{0x327, 0x327, 202}, {0x327, 0x110000, 202}, "combining classes"},
                  {{0xC9, 'E', 0x301}, {0xC5, 'E', 0x301}, "decompositions"},
                  {{0xC9, 'E', 0x301}, {0xC4, 'E', 0x301}, "decompositions"},
                  {{0xC9, 'E', 0x301}, {0xC9, 0xD800, 0x301}, "decompositions"},
                  {{0xC9, 'E', 0x301}, {0xC9, 'E', 0x110000}, "decompositions"},
                  {{0xC5, 'A', 0x30A}, {0xC5, 0xC5, 0x30A}, "U+00C5 does not end"},
                  {{0xC5, 'A', 0x30A}, {0xC5, 0x212B, 0}, "U+00C5 does not end"},
                  {{0xC5, 'A', 0x30A}, {0xC5, 'A', 0x344}, "U+00C5 does not end"},
                  {{'E', 0x301, 0xC9}, {'A', 0x30A, 0xC9}, "composites"},
                  {{'E', 0x301, 0xC9}, {'E', 0x301, 0xDFFF}, "composites"},
                  {{'d', 0x323, 0x1E0D}, {'d', 0x306, 0x1E0D}, "composites"}};

    for (size_t i = 0; i < sizeof classes / sizeof *classes; i++) {
        image f = small_image(F32, 0);
        patch_words(&f, UNICODE, classes[i].from, classes[i].to);
        check_refused(&f, classes[i].word);
    }
    for (size_t i = 0; i < sizeof normal / sizeof *normal; i++) {
        image f = small_image(F32, SMALL_NFC);
        patch_words(&f, NORMAL, normal[i].from, normal[i].to);
        check_refused(&f, normal[i].word);
    }

    /* Tokens and merges. Token 256 is "th", merge 0 by rank; tokens 265 to 268 are special. */
    static const struct {
        int section;
        size_t bytes;
        uint32_t from[4], to[4];
        const char *word;
    } words[] = {
        {BYTE_TOKENS, 8, {'a', 'b'}, {'b', 'b'}, "byte 97 has the token 98"},
        {BYTE_TOKENS, 8, {'a', 'b'}, {270, 'b'}, "byte 97 has the token 270"},
        {TOKEN_OFFSETS, 8, {7, 8}, {9, 8}, "token 7 ends before it begins"},
        {MERGES, 16, {'t', 'h', 0, 256}, {'i', 'n', 0, 258}, "out of order, or there twice"},
        {MERGES, 16, {'t', 'h', 0, 256}, {'t', 'h', 0, 257}, "token 257, is not its parts"},
        {MERGES, 16, {'t', 'h', 0, 256}, {'t', 270, 0, 256}, "unknown tokens"}};

    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        image f = small_image(F32, 0);
        patch_bytes(&f, words[i].section, words[i].from, words[i].to, words[i].bytes);
        check_refused(&f, words[i].word);
    }

    static const struct {
        int token;
        unsigned char type;
        const char *word;
    } types[] = {{'a', 1, "byte 97 has the token 97"},
                 {256, 1, "token 256, is no text"},
                 {'a', 4, "token 97 is of no known kind"}};

    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        image f = small_image(F32, 0);
        uint64_t bytes;
        f.bytes[section_at(&f, TOKEN_TYPES, &bytes) + types[i].token] = types[i].type;
        seal(&f);
        check_refused(&f, types[i].word);
    }

    /* The grammar, the template, and how many tokens end a request. */
    char long_end[73] = "\0\0\0\0\0";
    memset(long_end + 5, 'x', 65);

    const struct {
        const char *text;
        size_t n;
        int section;
        const char *word;
    } texts[] = {{"o a\nx b\n", 8, GRAMMAR, "line 2 of its answer grammar"},
                 {"o a\n\ns b\n", 9, GRAMMAR, "line 2 of its answer grammar"},
                 {"o a\ns \0\n", 8, GRAMMAR, "line 2 of its answer grammar"},
                 {"o a\no b\n", 8, GRAMMAR, "no openers or no steps"},
                 {"s a\ns b", 7, GRAMMAR, "no openers or no steps"},
                 {"\0\0\0\0\0a\0a\0", 10, TEMPLATE, NULL}, /* sound */
                 {"\0\0\0\0\0a\0\0", 9, TEMPLATE, NULL},
                 {"\0\0\0\0\0a\0", 8, TEMPLATE, "not of 9 parts"},
                 {"\0\0\0\0\0a\0\0\0", 10, TEMPLATE, NULL}, /* nine strings */
                 {"\0\0\0\0\0a\0\0\0\0", 11, TEMPLATE, "not of 9 parts"},
                 {"\0\0\0\0\0a\0b\0c", 10, TEMPLATE, "not of 9 parts"},
                 {"", 0, TEMPLATE, "not of 9 parts"},
                 {"a\0\0\0\0\0\0\0", 9, TEMPLATE, "with 0 tokens"},
                 {long_end, sizeof long_end, TEMPLATE, "with 65 tokens"}};

    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        image f = small_image(F32, 0);
        replace_section(&f, texts[i].section, texts[i].text, texts[i].n);
        if (texts[i].word)
            check_refused(&f, texts[i].word);
        else {
            steer_close(open_image(&f));
            free(f.bytes);
        }
    }

    /* The header's numbers, and the angles. */
    static const struct {
        size_t field;
        uint32_t value;
        const char *word;
    } header[] = {{FIELD(first) + 4, 'I', "named twice"},
                  {FIELD(site_pos), (uint32_t)-7, "default site"},
                  {FIELD(site_pos), 0, "default site"},
                  {FIELD(site_coeff), 0, "default site"}};

    for (size_t i = 0; i < sizeof header / sizeof *header; i++) {
        image f = small_image(F32, 0);
        patch_config(&f, header[i].field, header[i].value);
        check_refused(&f, header[i].word);
    }
    image f = small_image(F32, SMALL_NFC);
    patch_config(&f, FIELD(pretok), SENTENCEPIECE_RULE);
    check_refused(&f, "NFC");
    f = small_image(F32, 0);
    steer_model *m = open_image(&f);
    float *angle = (float *)(f.bytes + ((const unsigned char *)m->rope_freq - f.bytes)) + 1;
    steer_close(m);
    *angle = NAN;
    seal(&f);
    check_refused(&f, "angle 1");

    /* Bytes that are not aligned are the caller's fault, not the file's. */
    steer_error e = {0};
    f = small_image(F32, 0);
    memmove(f.bytes + 1, f.bytes, f.size);
    CHECK_THAT(!steer_open_memory(f.bytes + 1, f.size, "odd", &e) && e.code == STEER_EARG, "%s",
               e.text);
    free(f.bytes);
}

/* ---------------------------------------------------------------- a caller's numbers */

/* The ends of an int where the library adds or multiplies: refused, before they are. Under the
 * sanitizer an overflow ends the process. */
static void test_callers_numbers(void) {
    static const int ends[] = {INT_MIN, INT_MIN + 1, -1, 1 << 24, INT_MAX - 1, INT_MAX};

    enum { COUNT = sizeof ends / sizeof *ends };

    image f = small_image(F32, 0);
    steer_model *m = open_image(&f);
    if (!m)
        return;
    steer_error e = {0};
    steer_context *c = steer_context_new(m, &(steer_limits){.streams = 2, .positions = 16}, &e);
    int prompt[16] = {'a', 'b', 'c'}, out[16];
    float *tape_memory = zeros((size_t)3 * 16 * (size_t)m->config.d, sizeof *tape_memory);
    for (int i = 0; i < COUNT; i++) {
        int x = ends[i];
        size_t n = 1;
        const char *piece = steer_piece(m, x, &n);
        CHECK_THAT(piece && !n, "token %d has %zu bytes", x, n);

        steer_job job = {.prompt = prompt, .n_prompt = x, .max_new = 2, .out = out};
        CHECK_THAT(steer_generate(c, &job, 1, NULL, NULL, &e) == STEER_EARG, "n_prompt %d", x);
        job.n_prompt = 3;
        job.max_new = x;
        steer_status s = steer_generate(c, &job, 1, NULL, NULL, &e);
        CHECK_THAT(x < 0 ? !s && job.n_out == 0 : s == STEER_EARG, "max_new %d: %d", x, s);
        CHECK_THAT(steer_begin(c, x, NULL, -1, NULL, &e) == STEER_EARG, "stream %d", x);
        if (x != -1)
            CHECK_THAT(steer_begin(c, 0, NULL, x, NULL, &e) == STEER_EARG, "twin %d", x);
        CHECK_THAT(!steer_begin(c, 0, NULL, -1, NULL, &e) && !steer_begin(c, 1, NULL, -1, NULL, &e),
                   "%s", e.text);
        CHECK_THAT(steer_fork(c, x, 1, 0, &e) == STEER_EARG, "fork from %d", x);
        CHECK_THAT(steer_fork(c, 0, x, 0, &e) == STEER_EARG, "fork to %d", x);
        CHECK_THAT(steer_fork(c, 0, 1, x, &e) == STEER_EARG, "fork of %d positions", x);

        steer_tape tape = {.resid = tape_memory, .rows = 16, .first = x};
        steer_row row = {0, 0, 'a', 1, 1};
        CHECK_THAT(steer_run(c, &row, 1, &tape, &e) == STEER_EARG, "a tape from block %d", x);
        tape = (steer_tape){.resid = tape_memory, .rows = x};
        row.tape = 2;
        s = x < 0 ? steer_run(c, &row, 1, &tape, &e) : STEER_EARG;
        CHECK_THAT(s == STEER_EARG, "a tape of %d rows", x);
        row = (steer_row){0, x, 'a', 1, 0};
        CHECK_THAT(steer_run(c, &row, 1, NULL, &e) == STEER_EARG, "position %d", x);
        row = (steer_row){0, 0, x, 1, 0};
        CHECK_THAT(steer_run(c, &row, 1, NULL, &e) == STEER_EARG, "token %d", x);
        CHECK_THAT(steer_run(c, &row, x, NULL, &e) == STEER_EARG, "%d rows", x);

        steer_limits limits[] = {{.streams = x}, {.positions = x}, {.rows = x},
                                 {.logits = x},  {.cut_rows = x},  {.cut_rows = 1, .cut_layer = x}};
        for (int k = 0; k < 6; k++) {
            int large = x == 1 << 24 && k != 5; /* it may be had, if there is the memory */
            size_t bytes = steer_context_bytes(m, &limits[k]);
            CHECK_THAT(bytes == 0 || large || (x > 0 && (k == 3 || k == 4)),
                       "limit %d of %d takes %zu bytes", k, x, bytes);
            if (!bytes)
                CHECK_THAT(!steer_context_new(m, &limits[k], &e), "limit %d of %d", k, x);
        }
        CHECK_THAT(!steer_tracer_new(m, x, 8, 4, 1, &e), "a tracer from block %d", x);
        CHECK_THAT(!steer_tracer_new(m, 1, x, 4, 1, &e), "a tracer of %d positions", x);
        if (x != 1 << 24)
            CHECK_THAT(!steer_tracer_new(m, 1, 8, x, 1, &e), "a tracer of %d answers", x);
        CHECK_THAT(!steer_tracer_new(m, 1, 8, 4, x, &e), "a tracer of %d streams", x);

        steer_prompts p;
        if (x < 0) {
            s = steer_prompts_load(&p, m, "weights/harmful-val.txt", x, &e);
            CHECK_THAT(s == STEER_EARG && !p.n, "at most %d prompts: %s", x, s ? e.text : "fine");
        }
        steer_vector v = {0};
        double *mean = zeros((size_t)3 * 64 * (size_t)m->config.d, 2 * sizeof *mean);
        const steer_sums sums = {.sum = mean, .count = 1};
        CHECK_THAT(steer_dim(&v, m, &sums, &sums, x, -1, 1, &e) == STEER_EARG, "block %d", x);
        s = x == -1 ? STEER_EARG : steer_dim(&v, m, &sums, &sums, 0, x, 1, &e);
        CHECK_THAT(s == STEER_EARG, "position %d", x);
        steer_vector odd = {.v = tape_memory, .keep = tape_memory, .d = x, .layers = 2};
        CHECK_THAT(steer_vector_save(&odd, in_temporary("odd.vec"), &e) == STEER_EARG, "d %d", x);
        odd.d = m->config.d;
        odd.layers = x;
        CHECK_THAT(steer_vector_save(&odd, in_temporary("odd.vec"), &e) == STEER_EARG, "%d blocks",
                   x);
        free(mean);
    }

    /* A prompt that can't hold the template's end has no means. */
    int *lists[] = {prompt}, lengths[] = {m->eoi - 1};
    steer_prompts shorter = {.n = 1, .tokens = lists, .lengths = lengths};
    double *mean = zeros((size_t)3 * (size_t)m->eoi * 2 * (size_t)m->config.d, sizeof *mean);
    steer_sums sums = {.sum = mean};
    CHECK_THAT(steer_means(c, &shorter, NULL, 0, &sums, &e) != STEER_OK && e.code == STEER_EARG &&
                   strstr(e.text, "template"),
               "%s", e.text);
    free(mean);
    free(tape_memory);
    steer_context_free(c);
    steer_close(m);
    free(f.bytes);
}
