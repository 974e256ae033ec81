/* Trials: plans are compared on a program's own products.

   A pair is a product with the present plan and one with the challenger, the next product of the same
   kind. Which comes first is random: so what alternates in the program (two layers, say) favours
   neither. Noise is as likely to hit one as the other, and a challenger that is no faster wins hardly
   more than half of the pairs: it would have to win all of the first MIN_PAIRS, or all but MAX_LOSSES
   of NK_TRIAL_PAIRS (a sign test). */
#include "nkblas.h"

enum { MIN_PAIRS = 12, MAX_LOSSES = 6 };

/* A challenger loses early if all of its first 1, 2 or 3 ratios are above the limit for that number of
   pairs. A single time may be an outlier. */
static const double slow_ratio[] = {3, 1.3, 1.06};
enum { SLOW_PAIRS = sizeof slow_ratio / sizeof *slow_ratio };

/* What challengers may take longer than the present plan, of the time of all products; and the time of
   reading the clock for a pair. */
static const double max_share = 0.01, clock_ns = 100;

/* Threads that do not time products read it, too. */
static void decide(nk_trial *x, nk_verdict verdict)
{
    __atomic_store_n(&x->verdict, (int32_t)verdict, __ATOMIC_RELAXED);
}

static int is_slow(const nk_trial *x)
{
    if (x->pairs > SLOW_PAIRS)
        return 0;
    for (int i = 0; i < x->pairs; i++)
        if (x->ratios[i] < slow_ratio[x->pairs - 1])
            return 0;
    return 1;
}

void nk_trial_add(nk_trial *x, double ratio)
{
    x->ratios[x->pairs++] = ratio;
    x->wins += ratio < 1;
    int losses = x->pairs - x->wins;
    if (losses > MAX_LOSSES || is_slow(x))
        decide(x, NK_LOST);
    else if (x->pairs == NK_TRIAL_PAIRS || (x->pairs == MIN_PAIRS && losses == 0))
        decide(x, NK_WON);
}

static int random_bit(nk_trial *x)
{
    x->random ^= x->random << 13; /* xorshift: Marsaglia, J. Stat. Softw. 8 (14), 2003 */
    x->random ^= x->random >> 7;
    x->random ^= x->random << 17;
    return (int)(x->random >> 63);
}

/* Whether the next product belongs to the trial; and whether the challenger does it. */
static int next_is_timed(nk_trial *x, int64_t count, int *is_challenger)
{
    if (x->first_ns > 0) {
        *is_challenger = !x->first_is_challenger;
        if (x->first_count != count)
            x->first_ns = 0; /* the pair is given up */
        return x->first_count == count;
    }
    if (x->plan_ns > 0 && x->spent_ns > max_share * (double)x->calls * x->plan_ns)
        return 0;
    *is_challenger = x->plan_ns == 0 ? 0 : !x->is_warm || random_bit(x);
    return 1;
}

/* Take the time of a product into account. */
static void add_time(nk_trial *x, int64_t count, int is_challenger, double ns)
{
    if (is_challenger && x->plan_ns > 0 && ns > x->plan_ns)
        x->spent_ns += (double)count * (ns - x->plan_ns);
    if (!is_challenger)
        x->plan_ns = ns;
    if (!x->is_warm) {
        x->is_warm = is_challenger;
        if (is_challenger && ns > slow_ratio[0] * x->plan_ns)
            decide(x, NK_LOST);
    } else if (x->first_ns > 0) {
        double first = x->first_ns;
        x->first_ns = 0;
        x->spent_ns += clock_ns;
        nk_trial_add(x, is_challenger ? ns / first : first / ns);
    } else {
        x->first_ns = ns;
        x->first_count = count;
        x->first_is_challenger = is_challenger;
    }
}

int64_t nk_run_trial(nk_plan *plan, nk_matrix a, nk_matrix b, nk_matrix c, int64_t count,
                     nk_batch_strides strides, nk_call_args args, int32_t threads)
{
    nk_trial *x = plan->trial;
    int is_challenger = 0;
    __atomic_add_fetch(&x->calls, count, __ATOMIC_RELAXED);
    if (__atomic_load_n(&x->verdict, __ATOMIC_RELAXED) != NK_UNDECIDED ||
        __atomic_exchange_n(&x->is_taken, 1, __ATOMIC_ACQUIRE))
        return nk_run_plan(plan, a, b, c, count, strides, args, threads);
    int64_t done;
    if (next_is_timed(x, count, &is_challenger)) {
        int64_t start = nk_monotonic_ns();
        done = nk_run_plan(is_challenger ? &x->challenger : plan, a, b, c, count, strides, args,
                           threads);
        double ns = (double)(nk_monotonic_ns() - start) / (double)count;
        add_time(x, count, is_challenger, ns > 1 ? ns : 1);
        if (x->verdict != NK_UNDECIDED) /* the next product asks for the plan that follows */
            __atomic_store_n(&plan->tier_up_after, 1, __ATOMIC_RELAXED);
        __atomic_store_n(&x->is_taken, 0, __ATOMIC_RELEASE);
    } else {
        __atomic_store_n(&x->is_taken, 0, __ATOMIC_RELEASE);
        done = nk_run_plan(plan, a, b, c, count, strides, args, threads);
    }
    return done;
}
