// libggml-kvasir.so: a ggml backend that owns memory and computes nothing.
//
// llama.cpp puts the KV cache into the buffer type of the device that a layer is assigned to. This
// one calls itself a GPU, so that layers are; supports no operation, so that weights and all of the
// work stay on the CPU; and its buffers are host memory, so that the CPU backend reads and writes
// them in place.
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "client/llama_cpp/daemon_buffer.h"
#include "client/llama_cpp/plugin_hooks.h"

#include <dlfcn.h>
#include <ggml-backend-impl.h>
#include <link.h>

namespace kvasir::llama_cpp {
namespace {

#ifndef KVASIR_GGML_API_VERSION  // tests build the plug-in with another
#define KVASIR_GGML_API_VERSION GGML_BACKEND_API_VERSION
#endif

// One write, so that the line is whole when other threads write as well.
void Say(const std::string& text) {
  const std::string line = "kvasir: " + text + "\n";
  std::fwrite(line.data(), 1, line.size(), stderr);
}

// ---- transfers --------------------------------------------------------------------------------

struct Capture {
  kvasir_transfer_sink sink = nullptr;
  void* user = nullptr;
};
thread_local Capture capture;

void CaptureTransfers(kvasir_transfer_sink sink, void* user) { capture = {sink, user}; }

bool Captured(const ggml_tensor* tensor, size_t offset, size_t size, const void* data) {
  if (capture.sink == nullptr) return false;
  const kvasir_transfer transfer{tensor, offset, size, data};
  capture.sink(capture.user, &transfer);
  return true;
}

// ---- buffers ----------------------------------------------------------------------------------

// Buffers whose memory the daemon could take back.
struct OpenBuffers {
  std::mutex mutex;
  std::vector<DaemonBuffer*> all;
};
// Never destroyed: engines free buffers from destructors of their own static objects.
OpenBuffers& Open() {
  static auto* const open = new OpenBuffers;
  return *open;
}

DaemonBuffer* Of(ggml_backend_buffer_t buffer) {
  return static_cast<DaemonBuffer*>(buffer->context);
}

std::byte* At(const ggml_tensor* tensor, size_t offset) {
  return static_cast<std::byte*>(tensor->data) + offset;
}

void FreeBuffer(ggml_backend_buffer_t buffer) {
  DaemonBuffer* const memory = Of(buffer);
  {
    const std::scoped_lock lock(Open().mutex);
    std::erase(Open().all, memory);
  }
  delete memory;
}

void* BaseOf(ggml_backend_buffer_t buffer) { return Of(buffer)->data(); }

void MemsetTensor(ggml_backend_buffer_t, ggml_tensor* tensor, uint8_t value, size_t offset,
                  size_t size) {
  std::memset(At(tensor, offset), value, size);
}

void SetTensor(ggml_backend_buffer_t, ggml_tensor* tensor, const void* data, size_t offset,
               size_t size) {
  if (!Captured(tensor, offset, size, data)) std::memcpy(At(tensor, offset), data, size);
}

void GetTensor(ggml_backend_buffer_t, const ggml_tensor* tensor, void* data, size_t offset,
               size_t size) {
  if (!Captured(tensor, offset, size, data)) std::memcpy(data, At(tensor, offset), size);
}

bool CopyTensor(ggml_backend_buffer_t, const ggml_tensor* from, ggml_tensor* to) {
  const ggml_backend_buffer_type_t type = from->buffer->buft;
  if (type->iface.is_host == nullptr || !type->iface.is_host(type)) return false;
  // Both are laid out alike (ggml_backend_tensor_copy() asks for it), so this is their size.
  size_t bytes = to->nb[3] * static_cast<size_t>(to->ne[3]);
  for (int i = 0; i < 3; ++i) bytes = std::max(bytes, to->nb[i] * static_cast<size_t>(to->ne[i]));
  std::memcpy(to->data, from->data, bytes);
  return true;
}

void Clear(ggml_backend_buffer_t buffer, uint8_t value) {
  std::memset(Of(buffer)->data(), value, Of(buffer)->bytes());
}

// Interfaces are filled field by field: versions of ggml differ in the optional ones, which are
// null.
ggml_backend_buffer_i BufferInterface() {
  ggml_backend_buffer_i all{};
  all.free_buffer = FreeBuffer;
  all.get_base = BaseOf;
  all.memset_tensor = MemsetTensor;
  all.set_tensor = SetTensor;
  all.get_tensor = GetTensor;
  all.cpy_tensor = CopyTensor;
  all.clear = Clear;
  return all;
}

const char* TypeName(ggml_backend_buffer_type_t) { return "KVASIR"; }

ggml_backend_buffer_t AllocateBuffer(ggml_backend_buffer_type_t type, size_t size) {
  std::string error;
  std::unique_ptr<DaemonBuffer> memory = DaemonBuffer::Create(FindDaemon(), size, &error);
  if (memory == nullptr) {
    Say("no memory for llama.cpp: " + error);
    return nullptr;
  }
  {
    const std::scoped_lock lock(Open().mutex);
    Open().all.push_back(memory.get());
  }
  // As ggml_backend_buffer_init(), which is not called so that the plug-in needs no ggml library of
  // its own: the one that has loaded it may go by any file name.
  return new ggml_backend_buffer{BufferInterface(), type, memory.release(), size,
                                 GGML_BACKEND_BUFFER_USAGE_ANY};
}

// Of a cache line: what the CPU backend asks for is less.
size_t Alignment(ggml_backend_buffer_type_t) { return 64; }
bool IsHost(ggml_backend_buffer_type_t) { return true; }

// ---- backend ----------------------------------------------------------------------------------

const char* BackendName(ggml_backend_t) { return "KVASIR"; }
void FreeBackend(ggml_backend_t backend) { delete backend; }

// llama.cpp comes by before it lets anybody read logits, so what was computed on memory that is
// gone is never seen. The interface has no way to say it: the process ends.
void Synchronize(ggml_backend_t) {
  const std::scoped_lock lock(Open().mutex);
  for (DaemonBuffer* const memory : Open().all) {
    const std::string why = memory->WhyLost();
    if (why.empty()) continue;
    Say("the KV cache is lost, so this process ends: " + why);
    std::abort();
  }
}

// The scheduler gives it nothing, since no operation is supported.
ggml_status Compute(ggml_backend_t, ggml_cgraph*) { return GGML_STATUS_FAILED; }

ggml_guid_t Guid() {
  static ggml_guid guid = {0x6b, 0x76, 0x61, 0x73, 0x69, 0x72, 0x2d, 0x67,
                           0x67, 0x6d, 0x6c, 0x2d, 0x30, 0x30, 0x30, 0x31};
  return &guid;
}

ggml_backend_i BackendInterface() {
  ggml_backend_i all{};
  all.get_name = BackendName;
  all.free = FreeBackend;
  all.synchronize = Synchronize;
  all.graph_compute = Compute;
  return all;
}

// ---- device -----------------------------------------------------------------------------------

const char* DeviceName(ggml_backend_dev_t) { return "KVASIR"; }
const char* DeviceDescription(ggml_backend_dev_t) { return "memory of kvasird"; }

// The host's: what the tenant has left is known when it is asked for.
void DeviceMemory(ggml_backend_dev_t, size_t* free, size_t* total) {
  const auto page = static_cast<size_t>(::sysconf(_SC_PAGESIZE));
  *free = page * static_cast<size_t>(std::max<long>(0, ::sysconf(_SC_AVPHYS_PAGES)));
  *total = page * static_cast<size_t>(std::max<long>(0, ::sysconf(_SC_PHYS_PAGES)));
}

enum ggml_backend_dev_type DeviceType(ggml_backend_dev_t) { return GGML_BACKEND_DEVICE_TYPE_GPU; }

void DeviceProperties(ggml_backend_dev_t device, ggml_backend_dev_props* properties) {
  *properties = {};
  properties->name = DeviceName(device);
  properties->description = DeviceDescription(device);
  DeviceMemory(device, &properties->memory_free, &properties->memory_total);
  properties->type = DeviceType(device);
  properties->caps.mmap_support = true;  // else weights are read and not mapped
}

ggml_backend_t InitBackend(ggml_backend_dev_t device, const char*) {
  return new ggml_backend{Guid(), BackendInterface(), device, nullptr};
}

ggml_backend_buffer_type_i TypeInterface() {
  ggml_backend_buffer_type_i all{};
  all.get_name = TypeName;
  all.alloc_buffer = AllocateBuffer;
  all.get_alignment = Alignment;
  all.is_host = IsHost;
  return all;
}

ggml_backend_buffer_type_t BufferType(ggml_backend_dev_t device) {
  static ggml_backend_buffer_type type = {TypeInterface(), device, nullptr};
  return &type;
}

bool SupportsOperation(ggml_backend_dev_t, const ggml_tensor*) { return false; }
bool SupportsType(ggml_backend_dev_t device, ggml_backend_buffer_type_t type) {
  return type == BufferType(device);
}

ggml_backend_device_i DeviceInterface() {
  ggml_backend_device_i all{};
  all.get_name = DeviceName;
  all.get_description = DeviceDescription;
  all.get_memory = DeviceMemory;
  all.get_type = DeviceType;
  all.get_props = DeviceProperties;
  all.init_backend = InitBackend;
  all.get_buffer_type = BufferType;
  all.supports_op = SupportsOperation;
  all.supports_buft = SupportsType;
  return all;
}

// ---- registration -----------------------------------------------------------------------------

const char* RegistryName(ggml_backend_reg_t) { return "KVASIR"; }
size_t DeviceCount(ggml_backend_reg_t) { return 1; }

ggml_backend_dev_t Device(ggml_backend_reg_t registry, size_t) {
  static ggml_backend_device device = {DeviceInterface(), registry, nullptr};
  return &device;
}

void* Hook(ggml_backend_reg_t, const char* name) {
  if (std::strcmp(name, KVASIR_CAPTURE_TRANSFERS) == 0) {
    return reinterpret_cast<void*>(&CaptureTransfers);
  }
  return nullptr;
}

// Path of the ggml library of this process, in whatever scope it was loaded; "": none.
std::string LoadedGgml() {
  std::string path;
  ::dl_iterate_phdr(
      [](dl_phdr_info* info, size_t, void* out) {
        if (std::strstr(info->dlpi_name, "libggml-base.so") == nullptr) return 0;
        *static_cast<std::string*>(out) = info->dlpi_name;
        return 1;
      },
      &path);
  return path;
}

// Version of the ggml that has loaded this; "": it does not say.
std::string HostVersion() {
  void* symbol = ::dlsym(RTLD_DEFAULT, "ggml_version");
  if (symbol == nullptr) {
    const std::string path = LoadedGgml();
    void* const library = path.empty() ? nullptr : ::dlopen(path.c_str(), RTLD_NOW | RTLD_NOLOAD);
    if (library == nullptr) return "";
    symbol = ::dlsym(library, "ggml_version");
    ::dlclose(library);  // the host holds it
    if (symbol == nullptr) return "";
  }
  const char* const version = reinterpret_cast<const char* (*)()>(symbol)();
  return version == nullptr ? "" : version;
}

// "1.2" of "1.2.3".
std::string Series(const std::string& version) {
  const size_t first = version.find('.');
  return version.substr(0, first == std::string::npos ? first : version.find('.', first + 1));
}

// Null: llama.cpp goes on without this backend, in memory of its own.
ggml_backend_reg_t Register() {
  const std::string host = HostVersion();
  // Beside the interface's number, which ggml checks: nothing says that structs stay while it does.
  if (!host.empty() && Series(host) != Series(KVASIR_GGML_VERSION) &&
      std::getenv("KVASIR_ANY_GGML") == nullptr) {
    Say("the KV cache stays in llama.cpp's own memory: this plug-in is built for ggml " +
        Series(KVASIR_GGML_VERSION) + " (backend interface " +
        std::to_string(KVASIR_GGML_API_VERSION) + "), and this is ggml " + host +
        "; KVASIR_ANY_GGML=1 tries it all the same");
    return nullptr;
  }
  kvasir_error why{};
  if (ConnectTo(FindDaemon(), &why) == nullptr) {
    Say(std::string("the KV cache stays in llama.cpp's own memory: ") + why.text);
    return nullptr;
  }
  static ggml_backend_reg registry = {KVASIR_GGML_API_VERSION,
                                      {.get_name = RegistryName,
                                       .get_device_count = DeviceCount,
                                       .get_device = Device,
                                       .get_proc_address = Hook},
                                      nullptr};
  return &registry;
}

}  // namespace
}  // namespace kvasir::llama_cpp

// The name that ggml looks up.
extern "C" __attribute__((visibility("default"))) ggml_backend_reg_t ggml_backend_init(void) {
  return kvasir::llama_cpp::Register();
}
