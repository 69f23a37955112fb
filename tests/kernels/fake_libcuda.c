/* As much of a CUDA driver as Triton's launcher calls: nothing runs, the last launch is noted.
 *
 * ``fake_params`` says how many of the kernel's parameters to note, eight bytes each; the caller knows
 * their sizes.
 */
#include <cuda.h>
#include <string.h>

#define MOST 512

int fake_params = 0, fake_launches = 0;
unsigned fake_grid[3], fake_block, fake_shared;
unsigned long long fake_stream, fake_values[MOST];
static int nothing;

CUresult cuLaunchKernelEx(const CUlaunchConfig *config, CUfunction function, void **params, void **extra) {
  fake_grid[0] = config->gridDimX, fake_grid[1] = config->gridDimY, fake_grid[2] = config->gridDimZ;
  fake_block = config->blockDimX, fake_shared = config->sharedMemBytes;
  fake_stream = (unsigned long long)config->hStream;
  for (int i = 0; i < fake_params && i < MOST; i++)
    memcpy(&fake_values[i], params[i], sizeof *fake_values);
  fake_launches++;
  return CUDA_SUCCESS;
}

/* Every address is one of a device. */
CUresult cuPointerGetAttribute(void *found, CUpointer_attribute attribute, CUdeviceptr address) {
  *(CUdeviceptr *)found = address;
  return CUDA_SUCCESS;
}

CUresult cuCtxGetCurrent(CUcontext *context) {
  *context = (CUcontext)&nothing;
  return CUDA_SUCCESS;
}

CUresult cuModuleLoadData(CUmodule *module, const void *image) {
  *module = (CUmodule)&nothing;
  return CUDA_SUCCESS;
}

CUresult cuModuleGetFunction(CUfunction *function, CUmodule module, const char *name) {
  *function = (CUfunction)&nothing;
  return CUDA_SUCCESS;
}

CUresult cuFuncGetAttribute(int *value, CUfunction_attribute attribute, CUfunction function) {
  *value = attribute == CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK ? 1024 : 0;
  return CUDA_SUCCESS;
}

CUresult cuDeviceGetAttribute(int *value, CUdevice_attribute attribute, CUdevice device) {
  *value = 1 << 16;
  return CUDA_SUCCESS;
}

CUresult cuGetErrorString(CUresult error, const char **text) {
  *text = "an error of the stand-in";
  return CUDA_SUCCESS;
}

/* Linked against, and not called. */
CUresult cuCtxGetDevice(CUdevice *device) { return CUDA_ERROR_NOT_SUPPORTED; }
CUresult cuModuleUnload(CUmodule module) { return CUDA_SUCCESS; }
CUresult cuCtxSetCurrent(CUcontext context) { return CUDA_ERROR_NOT_SUPPORTED; }
CUresult cuCtxGetLimit(size_t *value, CUlimit limit) { return CUDA_ERROR_NOT_SUPPORTED; }
CUresult cuCtxSetLimit(CUlimit limit, size_t value) { return CUDA_ERROR_NOT_SUPPORTED; }
CUresult cuDeviceGet(CUdevice *device, int ordinal) { return CUDA_ERROR_NOT_SUPPORTED; }
CUresult cuDevicePrimaryCtxRetain(CUcontext *context, CUdevice device) { return CUDA_ERROR_NOT_SUPPORTED; }
CUresult cuDriverGetVersion(int *version) { return CUDA_ERROR_NOT_SUPPORTED; }
CUresult cuFuncSetAttribute(CUfunction function, CUfunction_attribute attribute, int value) {
  return CUDA_ERROR_NOT_SUPPORTED;
}
CUresult cuFuncSetCacheConfig(CUfunction function, CUfunc_cache config) { return CUDA_ERROR_NOT_SUPPORTED; }
