/* Plans of problems that differ from a planned one in n or in k alone.

   A program whose matrices grow with each product, as those of a text generator do, has a new problem
   for each. Where the selection of a plan depends on a size only through its class, the planner
   inserts the plan for the class, too (`Plan.sizes_in_classes`), and the engine applies it to the other
   sizes of the class. Python is asked once for each class, and for problems whose products repeat. */
#include "nkblas.h"

/* Up to MAX_ALONE, and where it is a multiple of STEP (then rows may be whole pages apart), a size is a
   class of its own. */
enum { MAX_ALONE = 32, STEP = 32, MIN_WIDTH = 8 };

int64_t nk_size_class(int64_t size)
{
    int64_t width = MIN_WIDTH;
    if (size <= MAX_ALONE || size % STEP == 0)
        return size;
    while (8 * width < size)
        width *= 2;
    return size / width * width + width - 1;
}

static nk_problem with_sizes(const nk_problem *problem, int64_t n, int64_t k)
{
    nk_problem x = *problem;
    x.n = n, x.k = k;
    return x;
}

nk_problem nk_class_in_n(const nk_problem *problem)
{
    return with_sizes(problem, -nk_size_class(problem->n), problem->k);
}

nk_problem nk_class_in_k(const nk_problem *problem)
{
    return with_sizes(problem, problem->n, -nk_size_class(problem->k));
}

nk_plan *nk_find_similar(const nk_problem *problem, nk_plan *similar)
{
    nk_problem in_k = nk_class_in_k(problem), in_n = nk_class_in_n(problem);
    nk_plan *found = nk_table_find(&in_k);
    if (found) {
        *similar = *found;
        similar->kc = problem->k; /* one block */
    } else if ((found = nk_table_find(&in_n))) {
        *similar = *found;
        nk_tiling *n = &similar->n;
        n->main_tiles = problem->n / n->tile;
        n->edge_tile = problem->n % n->tile;
        n->tiles = n->block_tiles = n->main_tiles + (n->edge_tile > 0);
    } else {
        return NULL;
    }
    similar->problem = *problem;
    return found;
}
