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

/* Takes the GIL, which the caller may have already, and then with an exception of its own. */
static int call_python(const nk_problem *problem)
{
    PyGILState_STATE state = PyGILState_Ensure();
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    int answer = nk_python_miss_handler(problem);
    PyErr_Restore(type, value, traceback);
    PyGILState_Release(state);
    return answer;
}

int nk_call_python_miss_handler(const nk_problem *problem)
{
    if (__atomic_load_n(&is_pending, __ATOMIC_RELAXED))
        return 0;
    if (!Py_IsInitialized()) /* C code may call when the interpreter has ended, or ends */
        return 0;
    int answer = call_python(problem);
    if (answer < 0)
        __atomic_store_n(&is_pending, !Py_AddPendingCall(raise_pending, NULL), __ATOMIC_RELAXED);
    return answer > 0;
}
