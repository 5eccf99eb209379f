#include "tests/llama_cpp/embedder_fixture.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <optional>
#include <sstream>

#include <gtest/gtest.h>

#include "base/small_file.h"
#include "tests/support/child_process.h"
#include "tests/support/raw_client.h"

namespace kvasir::testing {

std::string EmbedderFixture::Said::Of(const std::string& key, size_t nth) const {
  for (const std::string& line : lines) {
    if (line.rfind(key + " ", 0) == 0 && nth-- == 0) return line.substr(key.size() + 1);
  }
  return "";
}

EmbedderFixture::Said EmbedderFixture::Run(std::vector<std::string> options, bool direct) const {
  options.insert(options.begin(), {SiblingProgram("embedder_program"), "model=" + model_});
  std::vector<std::string> environment = {"KVASIR_CONTROL_SOCKET=" + folder_.path() +
                                          "/control.sock"};
  if (direct) environment.emplace_back("GGML_BACKEND_PATH=" KVASIR_GGML_PLUGIN);
  ChildProcess process(options, environment);
  Said said;
  said.errors = process.ReadErrors();
  said.errors.erase(0, said.errors.size() - std::min<size_t>(said.errors.size(), 1000));
  while (std::optional<std::string> line = process.ReadLine()) said.lines.push_back(*line);
  said.status = process.Wait();
  const std::string is_direct = said.Of("direct");
  EXPECT_TRUE(is_direct.empty() || is_direct == (direct ? "1" : "0")) << is_direct;
  return said;
}

std::vector<float> EmbedderFixture::Logits(std::vector<std::string> options, bool direct,
                                           Said* said) {
  const std::string path = folder_.path() + "/logits";
  options.push_back("logits=" + path);
  const Said got = Run(options, direct);
  EXPECT_EQ(got.status, 0) << got.errors << got.Of("error");
  if (said != nullptr) *said = got;
  const absl::StatusOr<std::string> bytes = ReadSmallFile(path, size_t{1} << 30);
  EXPECT_TRUE(bytes.ok());
  std::vector<float> logits(bytes.ok() ? bytes->size() / sizeof(float) : 0);
  if (!logits.empty()) std::memcpy(logits.data(), bytes->data(), bytes->size());
  return logits;
}

void EmbedderFixture::TearDown() {
  v1::DropPrefixesResponse response;
  EXPECT_TRUE(RawCalls(folder_.path() + "/control.sock", "")
                  .CallAdmin(&v1::Admin::Stub::DropPrefixes, v1::DropPrefixesRequest(), &response)
                  .ok());
  DaemonFixture::TearDown();
}

std::set<int> Numbers(const std::string& text) {
  std::set<int> numbers;
  std::istringstream in(text);
  for (std::string one; std::getline(in, one, ',');) numbers.insert(std::stoi(one));
  return numbers;
}

std::string Others(const std::set<int>& left, int end) {
  std::string text;
  for (int p = 0; p < end; ++p) {
    if (!left.contains(p)) text += (text.empty() ? "" : ",") + std::to_string(p);
  }
  return text;
}

double Largest(const std::vector<float>& a, const std::vector<float>& b) {
  EXPECT_EQ(a.size(), b.size());
  double gap = 0;
  for (size_t i = 0; i < std::min(a.size(), b.size()); ++i) {
    gap = std::max(gap, std::fabs(double{a[i]} - double{b[i]}));
  }
  return gap;
}

}  // namespace kvasir::testing
