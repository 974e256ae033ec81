/* Calls the miss handler in Python (runtime/miss_handler.py).

   An exception that a signal handler raises meanwhile (KeyboardInterrupt, for one) can't propagate
   through the engine: Python raises it as soon as this call returns to the interpreter. */
#include <Python.h>

#include "nkblas.h"

int nk_python_miss_handler(const nk_problem *problem); /* -1: an exception is pending */

static int is_pending; /* an exception that is to be raised: until then, Python is not called */

static int raise_pending(void *unused)
{
    (void)unused;
    __atomic_store_n(&is_pending, 0, __ATOMIC_RELAXED);
    PyObject *module = PyImport_ImportModule("nkblas.runtime.miss_handler");
    PyObject *result = module ? PyObject_CallMethod(module, "raise_pending", NULL) : NULL;
    int status = result ? 0 : -1;
    Py_DecRef(result); /* functions, not macros: this library serves all versions of Python */
    Py_DecRef(module);
    return status;
}

int nk_call_python_miss_handler(const nk_problem *problem)
{
    if (__atomic_load_n(&is_pending, __ATOMIC_RELAXED))
        return 0;
    int answer = nk_python_miss_handler(problem);
    if (answer < 0)
        __atomic_store_n(&is_pending, !Py_AddPendingCall(raise_pending, NULL), __ATOMIC_RELAXED);
    return answer > 0;
}
