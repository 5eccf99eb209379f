#include <utility>

#include "base/error.h"
#include "base/status_macros.h"
#include "device/cuda/cuda_driver-inl.h"

#include <fmt/format.h>

namespace kvasir::device {
namespace {

std::string UuidText(const CUuuid& uuid) {
  std::string text = "GPU-";
  for (int i = 0; i < 16; ++i) {
    if (i == 4 || i == 6 || i == 8 || i == 10) text += '-';
    text += fmt::format("{:02x}", static_cast<unsigned char>(uuid.bytes[i]));
  }
  return text;
}

std::string VersionText(int version) {
  return fmt::format("{}.{}", version / 1000, version % 1000 / 10);
}

absl::StatusOr<int> AttributeOf(const CudaDriver& driver, CUdevice device,
                                CUdevice_attribute attribute) {
  int value = 0;
  KVASIR_RETURN_IF_ERROR(CudaError(driver, driver.cuDeviceGetAttribute(&value, attribute, device),
                                   "cuDeviceGetAttribute"));
  return value;
}

absl::StatusOr<std::vector<std::string>> MissingOf(const CudaDriver& driver, CUdevice device) {
  struct Ability {
    CUdevice_attribute attribute;
    const char* text;
  };
  constexpr Ability kNeeded[] = {
      {CU_DEVICE_ATTRIBUTE_VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED, "virtual memory management"},
      {CU_DEVICE_ATTRIBUTE_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR_SUPPORTED, "memory as descriptors"},
      {CU_DEVICE_ATTRIBUTE_UNIFIED_ADDRESSING, "unified addressing"},
      {CU_DEVICE_ATTRIBUTE_CAN_USE_HOST_POINTER_FOR_REGISTERED_MEM, "host pointers"},
      {CU_DEVICE_ATTRIBUTE_CAN_USE_64_BIT_STREAM_MEM_OPS, "64-bit stream memory operations"}};
  std::vector<std::string> missing;
  for (const Ability& ability : kNeeded) {
    KVASIR_ASSIGN_OR_RETURN(const int value, AttributeOf(driver, device, ability.attribute));
    if (value == 0) missing.emplace_back(ability.text);
  }
  return missing;
}

}  // namespace

CUmemAllocationProp PropertiesOf(CUdevice device) {
  CUmemAllocationProp properties = {};
  properties.type = CU_MEM_ALLOCATION_TYPE_PINNED;
  properties.requestedHandleTypes = CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR;
  properties.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
  properties.location.id = device;
  return properties;
}

absl::StatusOr<int> CountGpus(const CudaDriver& driver) {
  KVASIR_RETURN_IF_ERROR(CudaError(driver, driver.cuInit(0), "cuInit"));
  int count = 0;
  KVASIR_RETURN_IF_ERROR(CudaError(driver, driver.cuDeviceGetCount(&count), "cuDeviceGetCount"));
  if (count == 0) return Unavailable("cuDeviceGetCount: no GPU is seen: count=0");
  return count;
}

absl::StatusOr<CudaGpu> LookAt(const CudaDriver& driver, int index) {
  CudaGpu gpu;
  DeviceFacts& facts = gpu.facts;
  facts.kind = DeviceKind::kCuda;
  int version = 0;
  KVASIR_RETURN_IF_ERROR(
      CudaError(driver, driver.cuDriverGetVersion(&version), "cuDriverGetVersion"));
  facts.driver = VersionText(version);
  CUdevice number = 0;
  KVASIR_RETURN_IF_ERROR(CudaError(driver, driver.cuDeviceGet(&number, index), "cuDeviceGet"));
  char name[256] = {};
  KVASIR_RETURN_IF_ERROR(
      CudaError(driver, driver.cuDeviceGetName(name, sizeof(name) - 1, number), "cuDeviceGetName"));
  facts.name = name;
  CUuuid uuid = {};
  KVASIR_RETURN_IF_ERROR(
      CudaError(driver, driver.cuDeviceGetUuid(&uuid, number), "cuDeviceGetUuid"));
  facts.uuid = UuidText(uuid);
  size_t bytes = 0;
  KVASIR_RETURN_IF_ERROR(
      CudaError(driver, driver.cuDeviceTotalMem(&bytes, number), "cuDeviceTotalMem"));
  facts.total_bytes = bytes;
  KVASIR_ASSIGN_OR_RETURN(
      facts.compute_major,
      AttributeOf(driver, number, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR));
  KVASIR_ASSIGN_OR_RETURN(
      facts.compute_minor,
      AttributeOf(driver, number, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR));
  KVASIR_ASSIGN_OR_RETURN(
      const int read_only,
      AttributeOf(driver, number, CU_DEVICE_ATTRIBUTE_READ_ONLY_HOST_REGISTER_SUPPORTED));
  facts.read_only_registration = read_only != 0;
  KVASIR_ASSIGN_OR_RETURN(gpu.missing, MissingOf(driver, number));
  constexpr int kLeast = KVASIR_CUDA_LEAST_CAPABILITY;
  if (10 * facts.compute_major + facts.compute_minor < kLeast) {
    gpu.missing.push_back(fmt::format(
        "code in this build, which begins at compute capability {}.{}", kLeast / 10, kLeast % 10));
  }
  if (!gpu.missing.empty()) return gpu;  // one without virtual memory has no granularity
  const CUmemAllocationProp properties = PropertiesOf(number);
  KVASIR_RETURN_IF_ERROR(CudaError(
      driver,
      driver.cuMemGetAllocationGranularity(&bytes, &properties, CU_MEM_ALLOC_GRANULARITY_MINIMUM),
      "cuMemGetAllocationGranularity"));
  facts.granularity_bytes = bytes;
  return gpu;
}

absl::StatusOr<std::vector<CudaGpu>> LookAtCudaGpus() {
  KVASIR_ASSIGN_OR_RETURN(const CudaDriver driver, LoadCudaDriver());
  KVASIR_ASSIGN_OR_RETURN(const int count, CountGpus(driver));
  std::vector<CudaGpu> gpus;
  for (int index = 0; index < count; ++index) {
    KVASIR_ASSIGN_OR_RETURN(CudaGpu gpu, LookAt(driver, index));
    gpus.push_back(std::move(gpu));
  }
  return gpus;
}

std::string CudaRuntimeVersion() { return VersionText(CUDA_VERSION); }

}  // namespace kvasir::device
