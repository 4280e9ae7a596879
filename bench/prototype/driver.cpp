// As much of CUDA's driver as launches of the prototype need, on a CPU: blocks run one after the other, on fibers.
// Kernels are those that this is compiled with, whatever is loaded.
#include <cstring>
#include <utility>

#include "backward.cu"
#include "forward.cu"

namespace {

template <typename... Parameters, std::size_t... Places>
void call(void (*kernel)(Parameters...), void **arguments, std::index_sequence<Places...>) {
  kernel(*static_cast<Parameters *>(arguments[Places])...);
}

template <typename... Parameters> void call(void (*kernel)(Parameters...), void **arguments) {
  call(kernel, arguments, std::index_sequence_for<Parameters...>());
}

void forward(void **arguments) { call(separable_forward, arguments); }
void backward(void **arguments) { call(separable_backward, arguments); }

struct Function {
  const char *name;
  void (*run)(void **);
  unsigned bytes, allowed; // of shared memory
};

Function functions[] = {
    {"separable_forward", forward, FORWARD_BYTES, 48 << 10},
    {"separable_backward", backward, BACKWARD_BYTES, 48 << 10},
};

constexpr int kInvalid = 1, kNotFound = 500, kSharedBytes = 8;

} // namespace

extern "C" {

int cuModuleLoadData(void **module, const void *) {
  *module = functions;
  return 0;
}

int cuModuleGetFunction(void **function, void *, const char *name) {
  for (Function &one : functions)
    if (std::strcmp(one.name, name) == 0) return *function = &one, 0;
  return kNotFound;
}

int cuFuncSetAttribute(void *function, int attribute, int value) {
  if (attribute != kSharedBytes) return kInvalid;
  static_cast<Function *>(function)->allowed = static_cast<unsigned>(value);
  return 0;
}

int cuFuncGetAttribute(int *value, int, void *) {
  *value = 0;
  return 0;
}

int cuLaunchKernel(void *function, unsigned blocks, unsigned, unsigned, unsigned threads, unsigned, unsigned,
                   unsigned shared, void *, void **arguments, void **) {
  const Function &one = *static_cast<Function *>(function);
  if (threads != THREADS || shared > one.allowed || shared != one.bytes) return kInvalid;
  for (unsigned block = 0; block < blocks; ++block) {
    fibers::here.block = block;
    fibers::run_block(threads, shared, fibers::Order::kForward, ~0u, [&] { one.run(arguments); });
  }
  return 0;
}
}
