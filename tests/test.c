/* The tests of steer.c: a table of functions, run by `make test` from the repository's top.
 * Goldens in tests/golden are written by tools/oracle.py, which runs the same weights in
 * PyTorch. The last line is "N passed, N failed"; the exit status is 1 when anything failed.
 * `tests/test NAME...` runs some. */
#define main steer_main
#include "../steer.c"
#undef main
#include <float.h>
#include <termios.h>

/* Under AddressSanitizer everything is slower: pure volume shrinks, no kind of test is left out. */
#ifdef __has_feature
#if __has_feature(address_sanitizer)
#define SANITIZED 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__) && !defined(SANITIZED)
#define SANITIZED 1
#endif
#ifndef SANITIZED
#define SANITIZED 0
#endif
#define PROGRAM (SANITIZED ? "tests/steer-sanitized" : "./steer")
#define USER_PROGRAM (SANITIZED ? "tests/user-sanitized" : "tests/user")

static int checks_failed;
static char test_name[64];
#define CHECK_THAT(condition, ...)                                              \
    do {                                                                        \
        if (!(condition)) {                                                     \
            if (checks_failed++ < 12) {                                         \
                printf("  %s: line %d: %s: ", test_name, __LINE__, #condition); \
                printf(__VA_ARGS__);                                            \
                printf("\n");                                                   \
            }                                                                   \
        }                                                                       \
    } while (0)

#include "fixtures.inc.c"
#include "terminal.inc.c"
#include "text.inc.c"
#include "files.inc.c"
#include "engine.inc.c"
#include "backward.inc.c"
#include "patching.inc.c"
#include "program.inc.c"
#include "vectors.inc.c"
#include "where.inc.c"
#include "options.inc.c"
#include "output.inc.c"
#include "store.inc.c"
#include "verdicts.inc.c"

typedef struct {
    const char *name;
    void (*run)(void);
    const char *what;
} test;

/* clang-format off */
static const test tests[] = {
    {"golden-random", test_golden_random, "logits of random models equal PyTorch's"},
    {"golden-box", test_golden_box, "logits of the models in the box equal PyTorch's"},
    {"golden-exact", test_golden_exact, "and PyTorch's in float64"},
    {"golden-where", test_golden_where, "and those of edits at positions and in several blocks"},
    {"golden-dim", test_golden_dim, "DIM vectors and their scores equal PyTorch's"},
    {"golden-means", test_golden_means, "so do vectors of system prompts and of responses"},
    {"golden-patch", test_golden_patch, "gradients, patching and circuits equal PyTorch's"},
    {"golden-train", test_golden_train, "training, value vectors, sparse vectors equal PyTorch's"},
    {"golden-tokens", test_golden_tokens, "token ids equal those of the tokenizers library"},
    {"golden-split", test_golden_split, "so do the pieces of all four pre-tokenizer rules"},
    {"template-switches", test_template_switches, "blanks, thinking and empty system turns"},
    {"info", test_info, "a model file's switches, template and tokens, in words"},
    {"golden-pieces", test_golden_pieces, "SentencePiece and whole words equal the library, too"},
    {"matmul", test_matmul, "the blocked product equals a double loop"},
    {"functions", test_functions, "exp, tanh, softmax, rope, norms, gates, caps"},
    {"round-trips", test_round_trips, "decoding gives back any bytes; look-alikes stay text"},
    {"linear-time", test_linear_time, "tokenizing takes time in proportion to the text"},
    {"normal-form", test_normal_form, "Unicode normal form C"},
    {"small-files", test_small_files, "small models open; a changed weight is found"},
    {"truncations", test_truncations, "every truncation of a model file is refused"},
    {"bit-flips", test_bit_flips, "flipped bits are refused; with a true checksum nothing breaks"},
    {"boundaries", test_boundaries, "values at which sizes overflow, in every field"},
    {"not-finite", test_not_finite, "weights that are no numbers end a run"},
    {"read-into-memory", test_read_into_memory, "a model read into memory needs its file no more"},
    {"no-mmap", test_no_mmap, "a conversation with --no-mmap outlives its file"},
    {"overflows", test_overflows, "two files that led outside of arrays are refused"},
    {"promises", test_promises, "what later code relies on is refused where it is broken"},
    {"callers-numbers", test_callers_numbers, "the ends of an int, refused before they overflow"},
    {"stack", test_stack, "what steer.h says that a thread needs is enough"},
    {"fast-math", test_fast_math, "-Ofast and -ffast-math are refused, with what to type"},
    {"vector-files", test_vector_files, "vectors come back; broken ones and others' are refused"},
    {"vector-formats", test_vector_formats, "GGUF, numpy, other files of a model, other models"},
    {"vector-commands", test_vector_commands, "what is taken, what is refused, what is said of it"},
    {"several-blocks", test_several_blocks, "a direction a block, and behind the last block"},
    {"prompts", test_prompts, "prompt files of every form, good and bad"},
    {"judging", test_judging, "refusals, coherence, intervals, repetition, log-odds, KL"},
    {"same-bits", test_same_bits, "bits do not depend on threads, batch or split"},
    {"more-threads", test_more_threads, "more threads than when the context was made"},
    {"batches", test_batches, "many jobs side by side equal each alone, shared prefixes too"},
    {"parts", test_parts, "edits in the prompt or the answer, whoever shares a beginning"},
    {"equal-plans", test_equal_plans, "no plan, own twin, whole span, fork: the same bits"},
    {"identities", test_identities, "ablation, addition and freezing do what they say"},
    {"edit-lists", test_edit_lists, "plans said in two ways; edits at some positions, two blocks"},
    {"plan-errors", test_plan_errors, "every wrong plan, row or size has its message"},
    {"generation", test_generation, "ends, samples, limits"},
    {"means", test_means, "means over prompts that begin alike"},
    {"command-line", test_command_line, "exit statuses and messages of ./steer"},
    {"unused-options", test_unused_options, "an option that a command does not use is refused"},
    {"numbers", test_numbers, "whole numbers are whole; nothing is cut, nan, hexadecimal"},
    {"refused-lines", test_refused_lines, "what is misspelt, missing, stray or without effect"},
    {"nothing-steered", test_nothing_steered, "coefficient 0 is unsteered; zeros are no vector"},
    {"brief-options", test_brief_options, "options of stages that do not run are refused"},
    {"help", test_help, "the help of each command lists what it takes"},
    {"documents", test_documents, "README's command lines and options are the program's"},
    {"threads", test_threads, "one start anew, the same bytes; processors and policy respected"},
    {"quota", test_quota, "a container's quota of processors"},
    {"busy-machine", test_busy_machine, "the default threads beside busy processes"},
    {"side-by-side", test_side_by_side, "texts in columns, row by row, whatever their bytes"},
    {"compare", test_compare, "answers side by side are those that each has alone"},
    {"chat-commands", test_chat_commands, "each command of a conversation says what it did"},
    {"begun", test_begun, "--answer, --raw, --special"},
    {"empty-system", test_empty_system, "an empty system prompt is an empty turn"},
    {"places", test_places, "--positions, --layers, several --vector; freezes, removals @ places"},
    {"placed-experiments", test_placed_experiments, "the same in evaluate and freeze"},
    {"position-tables", test_position_tables, "faithfulness by position agrees with the whole"},
    {"dashes", test_dashes, "- is standard input or output; messages name option and command"},
    {"progress-everywhere", test_progress_everywhere, "every command shows how far it is"},
    {"kernels-back", test_kernels_back, "each kernel's backward against central differences"},
    {"backward-whole", test_backward_whole,
     "completeness, sums of edges, heads and groups, threads"},
    {"circuits", test_circuits, "empty, full, pruned, selected, complementary circuits"},
    {"patterns", test_patterns, "attention patterns of a tape; scores, as many as are asked for"},
    {"value-vectors", test_value_vectors, "what removing the vector takes from a head"},
    {"sparse", test_sparse, "which dimensions stay, and what chance would keep"},
    {"training", test_training, "training lowers the loss; the seed decides the bits"},
    {"patch-errors", test_patch_errors, "wrong plans and examples of patching"},
    {"report", test_report, "the JSON is well formed, in a page too, and escapes its text"},
    {"progress", test_progress, "on a terminal progress is wiped before anything is printed"},
    {"progress-counted", test_counted, "a part's ticks are those it was said to have"},
    {"screen", test_screen, "on a terminal tables fit and progress is true"},
    {"summary", test_summary, "a screen, its parts, its figures those of report.json"},
    {"page", test_page, "a report's page is joined with it, and missed before the work"},
    {"circuit-files", test_circuit_files,
     "a circuit's file is read back, and refused where it does not fit"},
    {"store", test_store, "records are found again, by many keys, by the next run"},
    {"store-damage", test_store_damage, "flipped bits, cut and lost pieces: refused and counted"},
    {"store-owner", test_store_owner, "one process writes a store; what is none is refused"},
    {"store-time", test_store_time, "what runs took, summed over a store's runs and parts"},
    {"store-answers", test_store_answers, "answers are kept as they are made"},
    {"merge", test_merge, "stores are joined whole or not at all; parts are only read"},
    {"kill-reproduce", test_kill_reproduce, "kill -9 changes no output of the run that goes on"},
    {"kill-merge", test_kill_merge, "kill -9 leaves no half-merged store"},
    {"shards", test_shards, "shards run side by side print what one run prints"},
    {"reproduce", test_reproduce, "a short reproduction prints its tables"},
    {"whole-paper", test_whole_paper,
     "a model without a grammar goes the whole way; its pairs, token for token"},
    {"behaviour", test_behaviour, "another behaviour than refusal: its data, judge, names"},
    {"brief", test_brief, "of another model the freezing tables, with --patch everything"},
    {"odd-arguments", test_odd_arguments, "arguments that a caller can give by mistake"},
    {"output-files", test_output_files, "files whole or not at all; links, pipes, modes, signals"},
    {"dead-output", test_dead_output, "a full disk or a closed pipe ends every command with 1"},
    {"dev-stdout", test_dev_stdout, "--out /dev/stdout writes there and replaces nothing"},
    {"found-early", test_found_early, "what is wrong is found before the work, nothing is touched"},
    {"interrupted", test_interrupted, "answers are written as they come, in whole lines"},
    {"terminal", test_terminal, "no control character of others reaches a terminal"},
    {"intervals", test_intervals, "intervals equal those of statsmodels, scipy and the literature"},
    {"coverage", test_coverage, "95% intervals hold the truth 93 times in 100 or more"},
    {"losses", test_losses, "losses, shares and changes of answers made by hand"},
    {"verdicts", test_verdicts, "every verdict: holds, in part, fails, can't be told"},
    {"judges", test_judges, "what judges a circuit chose none"},
    {"controls", test_controls, "random vectors do not steer; ten random circuits are ten"},
    {"user", test_user, "a program that links the library"},
    {"snippet", test_snippet, "README's lines of C compile, and answer as the program does"},
    {"public-names", test_public_names, "the library's symbols are what steer.h declares"},
};
/* clang-format on */

int main(int argc, char **argv) {
    int passed = 0, failed = 0;
    setvbuf(stdout, NULL, _IOLBF, 0); /* what came before a crash is seen */
    /* A shell's background jobs begin with the first ignored, nohup's with the second. */
    signal(SIGINT, SIG_DFL);
    signal(SIGHUP, SIG_DFL);
    if (!mkdtemp(temporary)) {
        perror(temporary);
        return 1;
    }
    for (size_t i = 0; i < sizeof tests / sizeof *tests; i++) {
        int wanted = argc < 2;
        for (int k = 1; k < argc; k++)
            wanted |= !strcmp(argv[k], tests[i].name);
        if (!wanted)
            continue;
        double started = seconds();
        checks_failed = 0;
        snprintf(test_name, sizeof test_name, "%s", tests[i].name);
        set_threads(1); /* the models here are small */
        tests[i].run();
        printf("%s %-14s %s (%.1f s)\n", checks_failed ? "FAIL" : "ok  ", tests[i].name,
               tests[i].what, seconds() - started);
        fflush(stdout);
        passed += !checks_failed;
        failed += !!checks_failed;
    }
    char command[128];
    snprintf(command, sizeof command, "rm -rf %s", temporary);
    if (system(command))
        printf("%s is left\n", temporary);
    printf("%d passed, %d failed\n", passed, failed);
    return failed || !passed;
}
