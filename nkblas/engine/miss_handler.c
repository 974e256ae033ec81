/* Calls the miss handler in Python (runtime/miss_handler.py).

   An exception that a signal handler raises meanwhile (KeyboardInterrupt, for one) can't propagate
   through the engine: Python raises it as soon as this call returns to the interpreter. */
#include <Python.h>
#include <pthread.h>
#include <string.h>

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

static int handle(const nk_problem *problem)
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

/* ---- threads that never wait ---- */

/* A thread that Python does not know may be one for which another waits that has the GIL, in a
   library that does not release it. */

static _Thread_local int never_waits;

void nk_set_never_waits(int32_t on) { never_waits = on; }

int nk_is_foreign_thread(void) { return !PyGILState_GetThisThreadState(); }

/* Problems that Python's main thread is to plan. If there are more, their products ask again. */
enum { MAX_REQUESTS = 64 };
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static nk_problem requests[MAX_REQUESTS];
static int request_count;

static void acquire(void) { pthread_mutex_lock(&lock); }

static void release(void) { pthread_mutex_unlock(&lock); }

__attribute__((constructor)) static void register_fork_handlers(void)
{
    pthread_atfork(acquire, release, release);
}

static int plan_requests(void *unused)
{
    nk_problem problems[MAX_REQUESTS];
    (void)unused;
    acquire();
    int count = request_count;
    memcpy(problems, requests, (size_t)count * sizeof *problems);
    request_count = 0;
    release();
    for (int i = 0; i < count; i++)
        handle(&problems[i]);
    return 0;
}

static void request(const nk_problem *problem)
{
    acquire();
    int i = 0;
    while (i < request_count && memcmp(&requests[i], problem, sizeof *problem))
        i++;
    int is_new = i == request_count && i < MAX_REQUESTS;
    if (is_new)
        requests[request_count++] = *problem;
    release();
    if (is_new && Py_AddPendingCall(plan_requests, NULL)) {
        acquire();
        request_count = 0; /* Python has no room for the call: their products ask again */
        release();
    }
}

int nk_call_python_miss_handler(const nk_problem *problem)
{
    if (!never_waits || !nk_is_foreign_thread())
        return handle(problem);
    request(problem);
    return 0;
}
