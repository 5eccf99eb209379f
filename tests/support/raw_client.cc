#include "tests/support/raw_client.h"

#include <utility>

#include <gtest/gtest.h>

#include "base/check.h"
#include "base/error.h"

namespace kvasir::testing {
namespace {

// There is nothing to go on with when it could not start.
attack::Engine Start(const std::string& control_socket, const std::string& data_socket,
                     uint32_t layers) {
  absl::StatusOr<attack::Engine> engine =
      attack::Engine::Start(control_socket, data_socket, layers);
  KVASIR_CHECK(engine.ok(), "no engine: {}", MessageOf(engine.status()));
  return *std::move(engine);
}

}  // namespace

RawEngine::RawEngine(const std::string& control_socket, const std::string& data_socket,
                     uint32_t layers)
    : engine_(Start(control_socket, data_socket, layers)) {}

v1::OpenSequenceResponse RawEngine::Open(const std::string& retention) {
  absl::StatusOr<v1::OpenSequenceResponse> sequence = engine_.Open(retention);
  EXPECT_TRUE(sequence.ok()) << MessageOf(sequence.status());
  return sequence.ok() ? *std::move(sequence) : v1::OpenSequenceResponse();
}

void RawEngine::WriteToken(const v1::OpenSequenceResponse& sequence, uint64_t row, uint32_t id) {
  EXPECT_TRUE(engine_.WriteToken(sequence, row, id)) << row;
}

}  // namespace kvasir::testing
