/* Asks Python for a plan. What a signal handler raises meanwhile (KeyboardInterrupt, for one) can't
   pass through the engine: Python raises it again as soon as it goes on. */
#include <Python.h>

#include "nkblas.h"

int nk_plan_python(const nk_problem *problem); /* runtime.py; -1: something was raised */

static int raised; /* and not raised again yet: until then, Python is not asked */

static int raise_again(void *unused)
{
    (void)unused;
    __atomic_store_n(&raised, 0, __ATOMIC_RELAXED);
    PyObject *runtime = PyImport_ImportModule("nkblas.runtime.miss_handler");
    PyObject *done = runtime ? PyObject_CallMethod(runtime, "raise_again", NULL) : NULL;
    int status = done ? 0 : -1;
    Py_DecRef(done); /* of one library for all versions of Python: no macro */
    Py_DecRef(runtime);
    return status;
}

int nk_ask_python(const nk_problem *problem)
{
    if (__atomic_load_n(&raised, __ATOMIC_RELAXED))
        return 0;
    int answer = nk_plan_python(problem);
    if (answer < 0)
        __atomic_store_n(&raised, !Py_AddPendingCall(raise_again, NULL), __ATOMIC_RELAXED);
    return answer > 0;
}
