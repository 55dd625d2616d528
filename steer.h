/* steer.h: the public interface of steer.c, an engine that runs small chat models, steers them,
 * and measures why the steering works. MIT licence.
 *
 * Conventions. Blocks and positions count from 0; positions are absolute, the same in prefill and
 * in generation. A steering vector s points towards a behaviour, by default refusal: coefficient
 * a = +1 induces it, -1 bypasses it. Sections and equations named "paper" are those of arXiv
 * 2604.08524.
 *
 * Use. Link steer.c, built with STEER_NO_MAIN: the names steer_* are its only ones. Or define
 * STEER_NO_MAIN and include steer.c in a file of yours, before any other header; then functions,
 * types and macros of that file need a prefix, as steer.c's are called fail, dot, weight, ...
 *
 * Language. This header is C99 and C++11. steer.c is C11 with GNU's extensions (vector types among
 * them), for little-endian machines: POSIX systems, Windows and WebAssembly. gcc 12 and clang 14
 * are tested, and zig cc.
 *
 * Promises. No function exits, prints, reads the environment or keeps global state. A steer_model
 * is immutable once open and may be shared by threads; a steer_context belongs to one thread at a
 * time, and so does a steer_tracer. All that steer_run takes is allocated with its context; other
 * functions may allocate while they run. Results have the same bits for any number of OpenMP
 * threads, any batch and any split into prefill and generation. A thread that calls the library
 * needs 96 KB of stack. Plain structs may grow between versions: zero them before use, zero means
 * "default". There is no ABI promise.
 *
 * Returns. A failure is a steer_status that is not 0, a pointer that is NULL, or a count or number
 * (int, long) of -1; steer_context_bytes says 0. Where a steer_error is asked for, it then has the
 * reason; success clears it. Any call may refuse an argument (STEER_EARG), and one that allocates
 * may fail with STEER_ENOMEM; what else a call can fail with stands beside it.
 *
 * Ownership. What a *_new, *_open, *_load or steer_dim made is freed by the *_close or *_free
 * beside it. Arrays that a call writes are the caller's. What a call is given it borrows until it
 * returns; a context or a tracer borrows its model until it is freed.
 *
 * Threads. Built with OpenMP, work is shared by as many threads as the calling thread's
 * omp_set_num_threads or OMP_NUM_THREADS says. How they wait for each other is read from the
 * environment before main, so that it is for the caller to set: gcc's OpenMP spins for milliseconds
 * by default, which beside other busy processes makes two threads ten times slower than one.
 * GOMP_SPINCOUNT=2000 (about 50 microseconds; clang: KMP_BLOCKTIME=1) loses nothing on a quiet
 * machine, OMP_WAIT_POLICY=passive is the best on a busy one.
 */
#ifndef STEER_H
#define STEER_H
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define STEER_VERSION 3       /* of this interface */
#define STEER_MODEL_FORMAT 1  /* of model files, */
#define STEER_VECTOR_FORMAT 1 /* of vector files: what is written, and alone is read */
#define STEER_MAX_IDS 8       /* end-of-turn or first token ids of a model file */

/* ---- Errors: 0 is success; otherwise the error says in one sentence what was wrong and what to
 * do. Every `steer_error *e` may be NULL. ---- */
typedef enum {
    STEER_OK,
    STEER_ENOMEM,    /* memory */
    STEER_EIO,       /* the operating system refused a file */
    STEER_EFORMAT,   /* a file is not what it must be */
    STEER_EARG,      /* an argument is out of range */
    STEER_EMISMATCH, /* a vector made for another model, template or block */
    STEER_ENOHIT,    /* a plan holds an edit that changed nothing */
    STEER_ENONFINITE /* a NaN or an infinity appeared */
} steer_status;

typedef struct {
    steer_status code;
    char text[320];
} steer_error;

/* ---- The model ---- */
typedef struct steer_model steer_model;

typedef struct {
    int d, layers, heads, kv_heads, head_dim, ff, vocab, max_seq;
    /* Switches, 0 or 1: q, k and v have biases; what attention and MLP add is normed; GELU instead
     * of SiLU; the embedding is the unembedding, too. */
    int qkv_bias, post_norms, gelu, tied;
    /* Block b sees `window` positions (0: all) unless b % window_every == window_every - 1. */
    int window, window_every;
    float norm_eps, norm_offset;    /* RN(x) = x / sqrt(mean x² + eps) · (offset + w) */
    float attn_cap, final_cap;      /* cap · tanh(x / cap) of scores and of logits; 0: none */
    float embed_scale, query_scale; /* of embeddings; of q · k */
    /* How text is cut, 1: as GPT-2, digits one by one; 2: as Qwen2, or as Qwen3.5, if the file's
     * classes have marks as letters; 3: as Llama 3; 4: as SentencePiece; 5 to 8: the same, with a
     * space before it. */
    int pretok;
    int nfc;  /* 0 or 1: text is brought into NFC */
    int trim; /* spaces around a turn are dropped, 1: of each, 2: of an answer */
    int n_eot, n_first;
    int eot[STEER_MAX_IDS], first[STEER_MAX_IDS]; /* the paper's R: a refusal's first tokens */
    int site_layer, site_pos;                     /* site to report by default; layer 0: none */
    float site_coeff;
    int system_always;    /* the template writes a system turn even when there is no text for it */
    int drop_thinking;    /* and of earlier answers only what stands behind their </think> */
    int qk_norm;          /* queries and keys are normed by head before rope */
    int local_rope;       /* blocks with a window have rotations of their own */
    uint64_t fingerprint; /* of all bytes of the file */
    uint64_t identity;    /* of the model in files of any type of weights: its shape (but max_seq),
                          tokenizer, norms and biases. Fine-tuning that leaves all of these as they
                          were is not seen */
    char name[64];
} steer_config;

enum { STEER_READ = 1 }; /* flags of steer_open */

/* Open a model file; all its sizes, counts and checksums but the weights' are checked. NULL on
 * failure: STEER_EIO, it can't be read; STEER_EFORMAT, it is no such file, damaged or another
 * version's.
 *
 * With flags 0 the file is mapped: opening takes no time, weights are read when they are needed,
 * and processes share them. But then the file is part of the process until steer_close: if someone
 * truncates it, the next access ends the process with SIGBUS; if someone writes into it, weights
 * change in the middle of a run. So replace a model file by renaming a new one over it, never in
 * place. Where that can't be relied on, STEER_READ reads the whole file into memory (its size,
 * beside what contexts take) and needs it no more.
 *
 * The memory variant borrows `bytes`, at a multiple of 4, until steer_close. */
steer_model *steer_open(const char *path, unsigned flags, steer_error *e);
steer_model *steer_open_memory(const void *bytes, size_t size, const char *name, steer_error *e);
void steer_close(steer_model *m);
const steer_config *steer_model_config(const steer_model *m); /* the model's own */
/* The weights' checksum, which steer_open leaves: STEER_EFORMAT if they are damaged. */
steer_status steer_verify(const steer_model *m, steer_error *e);

/* ---- Text ---- */
/* Token ids of n bytes of plain text (special tokens' look-alikes stay text). Returns the number
 * of tokens, at most `cap` of which are written, or -1. */
long steer_encode(const steer_model *m, const char *text, size_t n, int *tokens, long cap,
                  steer_error *e);
/* The n bytes of one token, the model's own; special tokens give their name. None for ids that are
 * not. Never NULL. */
const char *steer_piece(const steer_model *m, int id, size_t *n);
/* Text of tokens; special ones, and ids outside the vocabulary, are left out. Returns its length;
 * writes at most cap - 1 bytes, a 0. */
size_t steer_decode(const steer_model *m, const int *tokens, int n, char *out, size_t cap);
/* A conversation under the model's template: turns[0] is the user's, turns[1] the assistant's, ...
 * Behind the user's last turn that of the assistant is opened; where the last turn is the
 * assistant's, it stays open, to be gone on from. system NULL: the model's default; "": a turn with
 * nothing in it, as the templates make of that. Returns as steer_encode. */
long steer_chat(const steer_model *m, const char *system, const char *const *turns, int n_turns,
                int *tokens, long cap, steer_error *e);
int steer_eoi(const steer_model *m); /* end-of-instruction tokens: positions -eoi .. -1 */

/* ---- Plans: what a stream does differently, as a list of edits. Data, not callbacks. ---- */
typedef enum {
    STEER_ADD = 1, /* x += coeff * v at the input of block `layer`, or behind the last one where it
                      is their number; v [d] the steering vector */
    STEER_ABLATE,  /* the component along v [d] is set, at the inputs and at the attention and MLP
                      outputs of blocks >= layer, to 0 or to keep[] */
    STEER_FREEZE,  /* `what`, in blocks >= layer, is read from the unsteered twin (paper section 6,
                      Table 1) */
    STEER_REMOVE,  /* where `what` reads, in blocks >= layer, the direct image of all that the plan
                      has added by then is subtracted (paper section 6.3) */
    STEER_CUT,     /* along the edges cut[] of the graph of the blocks >= layer, below, a slot reads
                      the twin's node instead of the stream's own (paper section 4.3) */
    STEER_START    /* v [positions][d] is the residual entering block `layer`, before anything is
                      added there: blocks below are not run */
} steer_kind;

enum { STEER_QK = 1, STEER_V = 2, STEER_MLP = 4 }; /* to freeze: patterns, values, MLP outputs */

enum { STEER_SVV = 1, STEER_MLP_DIRECT = 2 }; /* to remove from: values, MLP inputs */

enum { STEER_IN_PROMPT = 1, STEER_IN_ANSWER = 2 }; /* parts of a job's or an example's text */

typedef struct { /* what a kind does not name above is not read */
    steer_kind kind;
    int layer;
    int from, to; /* at positions from <= t < to; to 0: to the end. START: at all */
    float coeff;
    unsigned what; /* bits, of QK, V, MLP or of SVV, MLP_DIRECT */
    const float *v;
    const float *keep;        /* [3][layers]: input, attention, MLP; or NULL */
    const unsigned char *cut; /* [slots][nodes], 1 where cut */
    int part;                 /* of these positions: 0: all; STEER_IN_PROMPT: the prompt's alone;
                                 STEER_IN_ANSWER: the answer's, and from and to count from its
                                 first, which is read with the first token that was generated. A
                                 pattern is at the position that looks, a value at the one that is
                                 looked at. Where steer_begin began a stream all is answer */
} steer_edit;

/* Edits of one kind are applied in this order; so several blocks get a vector each by an ADD each.
 * Input only, all borrowed: threads and streams may share a plan. Where it is used, HITS [n] may be
 * asked for: how often each edit was applied. ADD, CUT and START count once a row, FREEZE once a
 * row and block, REMOVE once a row, block and bit of `what`, ABLATE three times a row and block. */
typedef struct {
    const steer_edit *edits; /* [n] */
    int n;
} steer_plan;

/* ---- The graph of the blocks >= layer (paper section 4) ----
 * NODES send, and are numbered in this order. 0: the residual entering block `layer`, the vector
 * included; then for each block its heads, then its MLP. A node's output is what it adds to the
 * residual stream. SLOTS receive: for each block the queries of all heads, the keys of all kv
 * groups, the values of all kv groups, the MLP; at last the unembedding. An EDGE leads from every
 * node to every later slot; edge slot * nodes + node is its place in arrays [slots][nodes]. */
typedef struct {
    int layer, blocks, heads, kv_heads;
    int nodes, slots, edges;
} steer_graph;

typedef enum { STEER_TO_Q, STEER_TO_K, STEER_TO_V, STEER_TO_MLP, STEER_TO_LOGITS } steer_input;

typedef struct {
    int from, head; /* block and head that send; head -1: the block's MLP; both -1: node 0 */
    int to;         /* block that receives; for the logits the number of blocks */
    steer_input input;
    int index; /* the head of a query, the kv group of a key or value; else 0 */
} steer_edge_ends;

steer_graph steer_graph_of(const steer_model *m, int layer); /* no such block: all counts are 0 */
/* Numbers; -1: there is none. head -1: the block's MLP; block -1 with it: node 0. */
int steer_node(const steer_graph *g, int block, int head);
int steer_slot(const steer_graph *g, int block, steer_input input, int index);
int steer_edge(const steer_graph *g, int node, int slot);
/* What an edge connects; 0, and nothing said, where this number is no edge. */
int steer_edge_of(const steer_graph *g, int edge, steer_edge_ends *ends);
/* Its name: "s > v 3.0", "head 2.5 > q 4.1", "mlp 3 > lm_head"; numbers are block.head or
 * block.group, s is node 0. Returns the name's length (0: no edge); writes at most cap - 1 bytes
 * and a 0. */
int steer_edge_name(const steer_graph *g, int edge, char *name, size_t cap);

/* ---- Runs ---- */
typedef struct steer_context steer_context;

typedef struct {
    int streams;   /* sequences at once; 0: 1 */
    int positions; /* of a sequence; 0: the model's max_seq */
    int rows;      /* of a run; 0: positions, but at most 256 */
    int logits;    /* rows of a run with logits; 0: as rows, at most 64, or streams if more */
    int cut_rows;  /* rows of a run with cut edges; 0: none */
    int cut_layer; /* the first block of their graph */
} steer_limits;

typedef struct {
    int stream, pos, token;
    int logits; /* 1: logits are wanted */
    int tape;   /* n > 0: this row is recorded as row n - 1 of the tape */
} steer_row;

/* What a run remembers of chosen rows: the stream's own, also where its plan freezes them. Any
 * array may be NULL. */
typedef struct {
    float *resid;       /* [depth + 1][rows][d] residual entering each block, after the edits */
    float *attn, *mlp;  /* [depth][rows][d] module outputs, before Gemma's post-norms */
    float *mid;         /* [depth][rows][d] residual between attention and MLP */
    float *q, *k, *v;   /* [depth][rows][heads or kv_heads * head_dim], q and k after rope */
    float *q_in, *k_in; /* q and k as W_Q and W_K make them, before bias, QK-norm and rope */
    float *z;           /* [depth][rows][heads * head_dim] values mixed by the patterns */
    float *gate, *up;   /* [depth][rows][ff] */
    int rows, first;    /* rows of the arrays, also where a run records fewer; depth = layers -
                            first: blocks below `first` are not recorded */
} steer_tape;

/* Attention pattern A[t][u] of a head, [n][n], from the q and k of a tape's rows row and on,
 * which are positions 0 .. n - 1 of one stream; 0 where t does not see u. Where a stream's
 * patterns are frozen, it is the twin's rows that have them. */
steer_status steer_pattern(const steer_model *m, const steer_tape *tape, int block, int head,
                           int row, int n, float *pattern, steer_error *e);
/* What a context takes; 0: too much for this machine, or limits that none has. */
size_t steer_context_bytes(const steer_model *m, const steer_limits *l);
steer_context *steer_context_new(const steer_model *m, const steer_limits *l, steer_error *e);
void steer_context_free(steer_context *c);
/* Begin a sequence under a plan (borrowed, and left as it is while the stream runs; NULL: none);
 * runs add to hits [plan->n], unless NULL. A plan that freezes or cuts needs a twin: another stream
 * that is fed the same tokens in the same runs; -1: none. With a twin, blocks below the first one
 * that the plan adds to or cuts are not run again: the stream enters at that block with the twin's
 * residual. STEER_ENONFINITE: a vector of the plan is not finite. */
steer_status steer_begin(steer_context *c, int stream, const steer_plan *plan, int twin,
                         int64_t *hits, steer_error *e);
/* Let `to`, which has begun under the same plan and run nothing, continue after the first n
 * positions of `from`, copying its KV cache. */
steer_status steer_fork(steer_context *c, int from, int to, int n, steer_error *e);
/* One forward pass over a batch of rows. Rows of a stream come in ascending positions and continue
 * it. Each row's result depends on its own stream (and twin) only. A refused run changes no stream;
 * after STEER_ENONFINITE, logits that are not finite, the rows have been run. */
steer_status steer_run(steer_context *c, const steer_row *rows, int n, const steer_tape *tape,
                       steer_error *e);
/* [vocab], of the last run's row, the context's own until the next run; NULL where no logits were
 * wanted, or the run was refused. */
const float *steer_logits(const steer_context *c, int row);

typedef struct {
    const int *prompt;
    int n_prompt, max_new;
    const steer_plan *plan;   /* or NULL */
    float temperature, top_p; /* temperature 0: greedy */
    uint64_t seed;
    int *out;      /* [max_new], the caller's */
    int n_out;     /* tokens written, an end-of-turn token included */
    int64_t *hits; /* [plan->n], set to what all jobs with this plan hit; or NULL */
} steer_job;

/* Generate many answers side by side; streams that begin alike share their prefix. `tick`, if any,
 * is told of each token (its job); returning non-zero stops all jobs with STEER_OK, behind that
 * token. Takes all streams of the context, which are as before steer_begin when it returns; so
 * does steer_means. STEER_ENOHIT: it was not stopped, and an edit of a plan changed no row; else
 * fails as steer_begin and steer_run do. */
steer_status steer_generate(steer_context *c, steer_job *jobs, int n,
                            int (*tick)(void *user, int job, int token), void *user,
                            steer_error *e);

/* ---- Vectors ---- */
typedef struct {
    int d, layers;
    int layer, pos; /* where it was taken: input of block; end-of-instruction position, or 0: over
                       the tokens of responses */
    float coeff;    /* the coefficient that it was chosen with; it is not multiplied in */
    uint64_t fingerprint, identity; /* of the model that it was made for; 0: not known */
    uint32_t template_crc;          /* of the chat template */
    char method[16], model[64];     /* "dim" */
    float *v;                       /* [d], owned; not normalised */
    float *keep;  /* [3][layers] means without the behaviour along v (steer_edit.keep), owned; or
                     NULL: not known */
    float *every; /* NULL, or the directions of several blocks, owned: [layers + 1][d], what is
                     added at the input of each and behind the last; zeros: nothing. v is its row
                     `layer` */
} steer_vector;

/* A vector of zeros, to be filled in, for a block and a position -eoi .. 0, see steer_vector;
 * method: what it is called in its file, at most 15 bytes. */
steer_status steer_vector_new(steer_vector *v, const steer_model *m, const char *method, int layer,
                              int pos, float coeff, steer_error *e);
/* In the format that the path's end names: .gguf, .npy, else steer's own; only .npy loses what is
 * not a number of v, or of every.
 *
 * A .gguf is a control vector, as llama.cpp and repeng read it: direction.N, which they add behind
 * block N, is that of block N + 1 here. STEER_EARG: block 0, for which it has none. llama.cpp
 * refuses direction.0, too. What is steer's own stands under keys of its own, steer.*, and comes
 * back exactly. The coefficient is not multiplied in, here as there: scale by it.
 *
 * A regular file is replaced whole or not at all, where links lead to it too, keeping its mode; its
 * new bytes are first in PATH.part0 (or 1, ...), which only a signal can leave behind. Pipes and
 * devices are written to as they are. STEER_EIO: the system refused. */
steer_status steer_vector_save(const steer_vector *v, const char *path, steer_error *e);

enum { STEER_FOREIGN = 1 }; /* flags of steer_vector_load */

/* Any of these formats, whatever the file's name. The model has to be the one that the vector was
 * made for, by fingerprint or, in another of its files, by identity; fingerprint tells which.
 * Others of the same width, and files that do not say (of llama.cpp, repeng, numpy), want
 * STEER_FOREIGN; then keep is NULL. What a file does not say is coefficient 1 and position -1; a
 * .npy [d] is for the model's site, one of [layers or layers + 1][d] for all blocks.
 *
 * STEER_EMISMATCH with the field named when it was made for another model or template; STEER_EIO,
 * STEER_EFORMAT, STEER_ENONFINITE: the file can't be read, is none, or holds no finite numbers. */
steer_status steer_vector_load(steer_vector *v, const char *path, const steer_model *m,
                               unsigned flags, steer_error *e);
/* The same of a file's bytes; `name` is for the errors. */
steer_status steer_vector_load_memory(steer_vector *v, const void *bytes, size_t size,
                                      const char *name, const steer_model *m, unsigned flags,
                                      steer_error *e);
/* A STEER_ADD of coeff * v, or one a block with a direction, into edits[layers + 1] at most, which
 * borrow the vector's numbers. Returns how many. */
int steer_vector_edits(const steer_vector *v, float coeff, steer_edit *edits);
void steer_vector_free(steer_vector *v);

/* ---- Prompts, with and without a behaviour ---- */
typedef struct { /* tokenised prompts; all arrays [n], owned */
    int n;
    int **tokens; /* tokens[i]: lengths[i] of the prompt, then responses[i] of a response */
    int *lengths;
    char **text, **task; /* task[i] is NULL where a prompt has none, as task may be */
    int *responses;      /* 0: none was given; NULL: to none */
    char **system;       /* as it was given, or NULL, as may be all */
} steer_prompts;

/* Append one prompt under the model's template to prompts that were zero at first (system NULL: the
 * model's default; response: what the assistant is to have said, or NULL; task: any note, or NULL).
 * The texts are copied. STEER_EARG: more tokens than the model has positions. */
steer_status steer_prompts_add(steer_prompts *p, const steer_model *m, const char *system,
                               const char *text, const char *response, const char *task,
                               steer_error *e);
/* One prompt a line: PROMPT, PROMPT<TAB>TASK, or an object of JSON with "prompt" and, where wanted,
 * "system", "response", "task", all of them texts; or a JSON array of such objects or of texts. The
 * template is applied. limit: how many at most; 0: all. STEER_EIO, STEER_EFORMAT: the file can't be
 * read, or a line is none. */
steer_status steer_prompts_load(steer_prompts *p, const steer_model *m, const char *path, int limit,
                                steer_error *e);
/* The same of a file's text; `name` is for the errors. */
steer_status steer_prompts_load_memory(steer_prompts *p, const steer_model *m, const char *text,
                                       size_t size, const char *name, int limit, steer_error *e);
void steer_prompts_free(steer_prompts *p);

typedef struct {                /* a behaviour. All zero, or NULL where one is asked for: refusal */
    const char *const *phrases; /* [n_phrases] an answer that holds one, in any case of ASCII
                                   letters, U+2019 being an apostrophe, shows the behaviour;
                                   n_phrases 0: the 12 of the paper */
    int n_phrases;
    const int *first; /* [n_first] the tokens that such an answer begins with (the paper's R);
                         n_first 0: the model file's */
    int n_first;
} steer_behaviour;

/* Log-odds ln P - ln(1 - P) that an answer to a prompt shows the behaviour, by its first token: P
 * of those tokens under logits [vocab] at the last prompt position (paper 2.2; eps 1e-8). NAN where
 * one is no token. */
double steer_log_odds(const steer_model *m, const steer_behaviour *b, const float *logits);
int steer_shows(const steer_behaviour *b, const char *text); /* 1: it holds one of the phrases */

/* Sums of activations at the end-of-instruction positions (paper 2.1); and, as position 0, of each
 * prompt with a response, of their mean over the response's tokens. */
typedef struct {
    double *sum;  /* [3][eoi][layers][d], the caller's, zeros at first: site 0 the residual entering
                    each block, 1 attention outputs, 2 MLP outputs */
    int count;    /* of prompts in sum; a mean is sum / count */
    double score; /* the sum of the log-odds of all n prompts, whether they count or not */
    int n;
    int responses;    /* of those that count, how many are in */
    double *response; /* [3][layers][d], as sum; NULL: responses are not looked at */
} steer_sums;

/* Run prompts, and add them to the sums. sign 1 counts prompts with log-odds > 0 only, -1 those
 * below 0, 0 all. Fails as steer_run does; the sums may then hold some of the prompts. */
steer_status steer_means(steer_context *c, const steer_prompts *p, const steer_behaviour *b,
                         int sign, steer_sums *to, steer_error *e);
/* The difference-in-means vector of a site (paper 2.1), a block and a position -eoi .. 0: the mean
 * over prompts with the behaviour minus that over prompts without it, and keep, the means without
 * it along v at the same position. steer_vector_free it. */
steer_status steer_dim(steer_vector *v, const steer_model *m, const steer_sums *with,
                       const steer_sums *without, int layer, int pos, float coeff, steer_error *e);

/* ---- Patching (paper section 4): which nodes and edges carry the steering ---- */
typedef struct {
    const int *tokens; /* [n] prompt, then response; borrowed */
    int n, n_prompt;
    float coeff;      /* of the vector in the steered run */
    int steered_text; /* 1: the response is the steered run's, which is then the destination, the
                            base run the source; 0: the other way round */
} steer_example;

/* Metrics m of a run, before any soft-cap: means over the positions of interest. For STEER_LOGIT
 * these are where source and destination predict different tokens, y and y*; for the others all,
 * but see steer_tracer_kl_min. P is the run's distribution over next tokens. */
enum {
    STEER_LOGIT,  /* z[y] - z[y*], logits */
    STEER_DIR_KL, /* KL(P_destination || P) - KL(P_source || P), nats */
    STEER_KL      /* KL(P_destination || P), nats */
};

typedef struct steer_tracer steer_tracer; /* the memory for such work: three tapes, gradients */
/* For examples of at most `positions` tokens and `answers` - 1 response tokens, a vector added at
 * block `layer`, and cut_streams patched runs at once: at least 2, 1 and 1. */
steer_tracer *steer_tracer_new(const steer_model *m, int layer, int positions, int answers,
                               int cut_streams, steer_error *e);
void steer_tracer_free(steer_tracer *t);
/* Of the KL metrics' positions of interest from now on: KL(destination || source), in nats, is at
 * least this there; 0, as at first: all positions are of interest. */
void steer_tracer_kl_min(steer_tracer *t, double kl_min);

typedef struct {
    int positions;   /* of interest; 0: source and destination agree everywhere, all else is 0 */
    double total;    /* m(source) - m(destination), in the metric's unit, as are all of these */
    double estimate; /* of it: node[0], the sum of vector[] */
    /* Arrays of the caller's; any may be NULL. */
    double *node;    /* [nodes] */
    double *vector;  /* [d] of node 0, by dimension of the vector */
    double *edge;    /* [slots][nodes], 0 where there is no edge: the paper's form, the gradient
                       behind the slot's norm, */
    double *aware;   /* and the norm-aware form, the gradient before it */
    float *gradient; /* [1 + 2 blocks][n][d] dm/dx at each position, averaged over the steps: x the
                        residual at the vector's site, then what attention and MLP of each block add
                        to the stream */
} steer_scores;

/* Integrated gradients over `steps` midpoints (paper eqs. 3 and 4) from destination to source; the
 * vector is s [d]. Fails as steer_begin and steer_run do. */
steer_status steer_attribute(steer_tracer *t, const steer_example *x, const float *s, int metric,
                             int steps, steer_scores *scores, steer_error *e);
/* The same by one run a node, node[nodes], and, if edge is not NULL, one an edge [slots][nodes]:
 * m(patched) - m(destination), STEER_LOGIT. Fails as steer_attribute does. */
steer_status steer_patch_exactly(steer_tracer *t, const steer_example *x, const float *s,
                                 double *node, double *edge, steer_error *e);
/* Faithfulness F[n] of plans on a steered response (paper section 4.3), without unit: 0 as the base
 * run, 1 as the steered; NAN when both say the same. A plan that adds nothing changes the steered
 * run: s is added as in the example. In one that adds vectors, their coefficients are multiplied by
 * the example's. No plan has a START. Fails as steer_generate does.
 *
 * D [n + 2][x->n - x->n_prompt], or NULL, gets the same token by token: z[s_t] - z[b_t], logits
 * where token t of the response is predicted, s_t and b_t the tokens that the steered and the base
 * run predict there; of the base run, the steered run, each plan. F[i] = sum_t (D[2 + i] - D[0]) /
 * sum_t (D[1] - D[0]). */
steer_status steer_faithfulness(steer_tracer *t, const steer_example *x, const float *s,
                                const steer_plan *plans, int n, double *F, double *D,
                                steer_error *e);

/* ---- Circuits (paper section 4.3): which edges carry the steering. An array kept[slots][nodes]
 * has 1 where an edge is kept; elsewhere, and where there is no edge, 0. Graphs have at most 16384
 * nodes. ---- */
/* All edges into order[g->edges]: by falling |score|, score[slots][nodes], equal ones in the order
 * of their numbers; or, where score is NULL, shuffled as the seed says. */
steer_status steer_circuit_order(const steer_graph *g, const double *score, uint64_t seed,
                                 int *order, steer_error *e);

typedef enum {
    STEER_SIMPLE,   /* the first c of the order, pruned, c the least that leaves n or more (the
                      paper's) */
    STEER_BACKWARD, /* n times the first that goes on backward from the logits */
    STEER_FORWARD   /* n times the first that goes on forward from node 0 */
} steer_selection;

/* A circuit of n edges, of such an order, into kept. Returns how many it has, or -1. */
int steer_circuit_select(const steer_graph *g, const int *order, int n, steer_selection how,
                         unsigned char *kept, steer_error *e);
/* Keep only edges on a path from node 0 to the logits. Returns how many are left, or -1. */
int steer_circuit_prune(const steer_graph *g, unsigned char *kept, steer_error *e);
/* What a STEER_CUT cuts so that the circuit alone is left or, with `complement`, so that all but
 * the circuit is. cut may be kept. */
steer_status steer_circuit_cut(const steer_graph *g, const unsigned char *kept, int complement,
                               unsigned char *cut, steer_error *e);
/* |A and B| / min(|A|, |B|), or with `of_union` / |A or B|, of n = slots * nodes bytes; 0 where one
 * is empty (paper section 5.2). */
double steer_circuit_overlap(const unsigned char *a, const unsigned char *b, size_t n,
                             int of_union);
/* A text file: model and first block, then a line an edge, its number and its name. Written as
 * steer_vector_save writes. Loading sets kept; another model's or block's circuit is refused
 * (STEER_EMISMATCH), as is what is no circuit file (STEER_EFORMAT). */
steer_status steer_circuit_save(const char *path, const steer_model *m, const steer_graph *g,
                                const unsigned char *kept, steer_error *e);
steer_status steer_circuit_load(const char *path, const steer_model *m, const steer_graph *g,
                                unsigned char *kept, steer_error *e);

/* ---- Trained vectors (paper section 3; its appendix has the losses) ---- */
typedef struct {          /* one prompt with two responses */
    const int *tokens[2]; /* [n] prompt, then response: the wanted one; the unwanted one, which only
                             STEER_PO needs: else it may be NULL. Borrowed */
    int n[2], n_prompt;
    float sign;      /* of the vector's coefficient while it is trained on this pair: 1, or -1 */
    float *start[2]; /* [n][d] the caller's; what steer_pair_prepare sets: the base run's
                            residual entering the vector's block, */
    double reference[2]; /* and ln p of the response in it */
} steer_pair;

typedef enum {
    STEER_NTP, /* next-token prediction: -ln p of the wanted response, a token */
    STEER_PO   /* preference optimisation: the wanted one before the unwanted */
} steer_objective;

typedef struct {
    steer_objective objective;
    int epochs, batch, window; /* 0: 10; 0: 6 pairs a step; 0: the first 64 tokens of a response */
    double rate;               /* Adam's, falls to 0 by the last epoch; 0: 0.01 */
    double phi;                /* PO's; 0: 0.02 */
    uint64_t seed;             /* of the first vector, the order of pairs, their coefficients */
    void (*tick)(void *user);  /* after every pair that was trained on; or NULL */
    void *user;
} steer_training;

typedef struct {
    double loss;  /* mean over the validation pairs, under the vector at its final norm */
    double match; /* share of the wanted response's tokens that are the most probable ones */
} steer_epoch;

/* Before pairs are trained on: their base runs. Fails as steer_run does. */
steer_status steer_pair_prepare(steer_tracer *t, steer_pair *pair, const steer_training *how,
                                steer_error *e);
/* Train v [d], added at the tracer's block; it gets this norm. record[epochs]; *best: the epoch
 * that v is of, where the validation pairs are fitted best. Allocates epochs d floats, 5 d doubles
 * and n ints. STEER_ENONFINITE: no epoch's loss, or not v itself, is finite; else fails as
 * steer_run does. */
steer_status steer_train(steer_tracer *t, const steer_pair *pairs, int n,
                         const steer_pair *validation, int n_validation, const steer_training *how,
                         double norm, float *v, steer_epoch *record, int *best, steer_error *e);

/* ---- What a vector says (paper section 6) ---- */
/* Steering value vector (paper section 6): to[d] = W_O W_V (gain · v) of a head, what v, read
 * through the head's value and output, writes; without the norms' scalars. to may be v. */
steer_status steer_value_vector(const steer_model *m, const float *v, int block, int head,
                                float *to, steer_error *e);
/* Logit lens: the n tokens whose logits W_U RN(v) are the largest, and these, before any soft-cap.
 * 1 <= n <= vocab. */
steer_status steer_logit_lens(const steer_model *m, const float *v, int n, int *ids, float *logits,
                              steer_error *e);

/* ---- Sparse vectors (paper section 7) ---- */
typedef enum {
    STEER_BY_GRADIENT,  /* drop i where |effect_i| / |effect| < tau |v_i| / |v| (the paper's) */
    STEER_BY_EFFECT,    /* drop as many: the smallest |effect_i|, */
    STEER_BY_MAGNITUDE, /* the smallest |v_i|, */
    STEER_BY_CHANCE     /* any, as the seed says */
} steer_sparsity;

/* v [d] with dimensions set to 0, into to[d]; renormalise 1: with v's norm again. effect[d]: the
 * estimate by dimension of steer_attribute, or a mean of such. Returns how many stay, or -1. to may
 * be v. */
int steer_sparsify(const float *v, const double *effect, int d, double tau, steer_sparsity by,
                   uint64_t seed, int renormalise, float *to, steer_error *e);

#ifdef __cplusplus
}
#endif
#endif
