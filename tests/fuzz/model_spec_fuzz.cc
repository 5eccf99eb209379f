// Model descriptions that engines register: any message is refused with the field's name, or is a
// model that says the same of itself again.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <utility>

#include <google/protobuf/stubs/logging.h>

#include "base/error.h"
#include "daemon/control/model_convert.h"

namespace {

// What both ways agree on: digests and the like come back as they were.
std::string Text(const kvasir::core::Model& model) {
  return kvasir::ToModelSpec(model.description()).SerializeAsString();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  // It writes a line for each text that is no UTF-8.
  static const auto silent [[maybe_unused]] = google::protobuf::SetLogHandler(nullptr);
  kvasir::v1::ModelSpec spec;
  if (!spec.ParseFromArray(data, static_cast<int>(size))) return 0;
  absl::StatusOr<kvasir::core::ModelDescription> description = kvasir::ToModelDescription(spec);
  if (!description.ok()) {
    if (kvasir::MessageOf(description.status()).empty()) std::abort();
    return 0;
  }
  const auto model = kvasir::core::Model::Create(*std::move(description));
  if (!model.ok()) return 0;
  if (model->layers() == 0 || model->slots_per_block() == 0) std::abort();
  description = kvasir::ToModelDescription(kvasir::ToModelSpec(model->description()));
  if (!description.ok()) std::abort();
  const auto again = kvasir::core::Model::Create(*std::move(description));
  if (!again.ok() || Text(*again) != Text(*model)) std::abort();
  return 0;
}
