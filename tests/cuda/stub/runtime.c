/* The CUDA runtime of a device that computes nothing: its memory is a range of the host's, its
   kernels do nothing. `stub_errors` counts what a real one would refuse: allocating, waiting and
   copying at once while a graph is recorded. */

#include <driver_types.h>
#include <sys/mman.h>

long stub_launches = 0, stub_replays = 0, stub_recordings = 0, stub_errors = 0;
/* Bytes of page-locked memory that were asked for. */
long stub_pinned = 0;
/* To the device from the host 1, to the host from the device 2, within the device 3. */
long stub_copies[4] = {0};

/* Of addresses, each of which is given out once. */
#define MEMORY (16UL << 40)
static char *memory = 0;
static size_t used = 0;
static int recording = 0;

static int on_device(const void *p) {
  return memory && (char *)p >= memory && (char *)p < memory + MEMORY;
}
static void count(const void *to, const void *from) {
  stub_copies[on_device(to) + 2 * on_device(from)]++;
}
static int handle(void **p) { *p = calloc(1, 64); return 0; }

int cudaGetDeviceCount(int *n) { *n = 1; return 0; }
int cudaGetDevice(int *n) { *n = 0; return 0; }
int cudaSetDevice(int n) { return n == 0 ? 0 : 101; }
int cudaDriverGetVersion(int *v) { *v = 13000; return 0; }
int cudaRuntimeGetVersion(int *v) { *v = 13000; return 0; }
int cudaGetDeviceProperties(struct cudaDeviceProp *p, int device) {
  memset(p, 0, sizeof *p);
  strcpy(p->name, "a device that computes nothing");
  p->totalGlobalMem = 32UL << 30;
  p->sharedMemPerBlock = 49152;
  p->regsPerBlock = 65536;
  p->warpSize = 32;
  p->maxThreadsPerBlock = 1024;
  for (int i = 0; i < 3; i++) p->maxThreadsDim[i] = 1024, p->maxGridSize[i] = 65535;
  p->major = 9;
  p->multiProcessorCount = 132;
  p->maxThreadsPerMultiProcessor = 2048;
  p->sharedMemPerMultiprocessor = 233472;
  p->sharedMemPerBlockOptin = 232448;
  p->memoryPoolsSupported = 1;
  return 0;
}
int cudaDeviceGetAttribute(int *v, int attribute, int device) {
  switch (attribute) {
    case cudaDevAttrMaxThreadsPerBlock: *v = 1024; break;
    case cudaDevAttrWarpSize: *v = 32; break;
    case cudaDevAttrMultiProcessorCount: *v = 132; break;
    case cudaDevAttrMaxThreadsPerMultiProcessor: *v = 2048; break;
    case cudaDevAttrComputeCapabilityMajor: *v = 9; break;
    case cudaDevAttrComputeCapabilityMinor: *v = 0; break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin: *v = 232448; break;
    default: *v = 1;
  }
  return 0;
}

int cudaMalloc(void **p, size_t n) {
  if (!memory)
    memory = mmap(0, MEMORY, PROT_READ | PROT_WRITE,
                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  n = ((n + 4095) & ~4095UL) + 4096; /* the page before it tells the size */
  if (memory == MAP_FAILED || used + n > MEMORY) return cudaErrorMemoryAllocation;
  *(size_t *)(memory + used) = n;
  *p = memory + used + 4096;
  used += n;
  stub_errors += recording;
  return 0;
}
int cudaFree(void *p) {
  if (p) madvise((char *)p - 4096, *(size_t *)((char *)p - 4096), MADV_DONTNEED);
  return 0;
}
int cudaFreeAsync(void *p, void *stream) { return cudaFree(p); }
int cudaMallocFromPoolAsync(void **p, size_t n, void *pool, void *s) { return cudaMalloc(p, n); }
int cudaMallocHost(void **p, size_t n) {
  stub_pinned += n;
  *p = malloc(n ? n : 1);
  return 0;
}
int cudaHostAlloc(void **p, size_t n, unsigned flags) { *p = malloc(n ? n : 1); return 0; }
int cudaFreeHost(void *p) { free(p); return 0; }
int cudaMemGetInfo(size_t *f, size_t *t) { *f = 30UL << 30; *t = 32UL << 30; return 0; }
int cudaPointerGetAttributes(struct cudaPointerAttributes *a, const void *p) {
  memset(a, 0, sizeof *a);
  a->type = on_device(p) ? cudaMemoryTypeDevice : cudaMemoryTypeUnregistered;
  a->devicePointer = a->hostPointer = (void *)p;
  return 0;
}

int cudaMemcpy(void *to, const void *from, size_t n, int kind) {
  count(to, from);
  stub_errors += recording;
  memcpy(to, from, n);
  return 0;
}
int cudaMemcpyAsync(void *to, const void *from, size_t n, int kind, void *stream) {
  count(to, from);
  memcpy(to, from, n);
  return 0;
}
int cudaMemcpy2DAsync(void *to, size_t step, const void *from, size_t from_step, size_t width,
                      size_t height, int kind, void *stream) {
  count(to, from);
  for (size_t i = 0; i < height; i++)
    memcpy((char *)to + i * step, (char *)from + i * from_step, width);
  return 0;
}
int cudaMemcpyFromSymbol(void *to, const void *from, size_t n, size_t offset, int kind) {
  memset(to, 0, n);
  return 0;
}
int cudaMemset(void *p, int v, size_t n) { memset(p, v, n); return 0; }
int cudaMemsetAsync(void *p, int v, size_t n, void *stream) { memset(p, v, n); return 0; }

int cudaStreamCreate(void **p) { return handle(p); }
int cudaStreamCreateWithFlags(void **p, unsigned flags) { return handle(p); }
int cudaEventCreate(void **p) { return handle(p); }
int cudaEventCreateWithFlags(void **p, unsigned flags) { return handle(p); }
int cudaEventElapsedTime(float *t, void *a, void *b) { *t = 1; return 0; }
int cudaMemPoolCreate(void **p, const void *properties) { return handle(p); }
int cudaMemPoolGetAttribute(void *p, int a, void *v) { *(unsigned long long *)v = 0; return 0; }
int cudaStreamSynchronize(void *stream) { stub_errors += recording; return 0; }
int cudaDeviceSynchronize() { stub_errors += recording; return 0; }

int cudaStreamBeginCapture(void *stream, int mode) { recording = 1; stub_recordings++; return 0; }
int cudaStreamEndCapture(void *stream, void **graph) { recording = 0; return handle(graph); }
int cudaStreamIsCapturing(void *stream, int *status) { *status = recording; return 0; }
int cudaGraphInstantiate(void **p, void *graph, unsigned long long flags) { return handle(p); }
int cudaGraphLaunch(void *graph, void *stream) { stub_replays++; return 0; }

int cudaLaunchKernel() { stub_launches++; return 0; }
int cudaLaunchKernelExC(const void *c, const void *f, void **a) { stub_launches++; return 0; }
int __cudaLaunchKernel() { stub_launches++; return 0; }
int cudaLaunchHostFunc(void *stream, void (*f)(void *), void *data) { f(data); return 0; }
int cudaFuncGetAttributes(struct cudaFuncAttributes *a, const void *f) {
  memset(a, 0, sizeof *a);
  a->maxThreadsPerBlock = 1024;
  a->binaryVersion = a->ptxVersion = 90;
  return 0;
}
int cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int *n, const void *f, int threads,
                                                           size_t shared, unsigned flags) {
  *n = 2;
  return 0;
}
void **__cudaRegisterFatBinary(void *binary) { static void *made[8]; return made; }
int __cudaGetKernel(void **kernel, const void *f) { *kernel = (void *)f; return 0; }
int cudaGetDriverEntryPointByVersion(const char *name, void **p, unsigned version,
                                     unsigned long long flags, int *status) {
  *p = 0;
  if (status) *status = 1;
  return 0;
}
int __cudaPopCallConfiguration(void *grid, void *block, size_t *shared, void **stream) {
  memset(grid, 0, 12);
  memset(block, 0, 12);
  *shared = 0;
  *stream = 0;
  return 0;
}
