// kvasir-generate from the outside: output, exit codes, error texts.
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

#include <gmock/gmock.h>

#include "tests/engine/engine_support.h"

#include <nlohmann/json.hpp>

namespace kvasir::engine::testing {
namespace {

using ::testing::HasSubstr;

struct Outcome {
  int exit_code = -1;
  std::string out;
};

class GenerateProgram : public ::testing::Test {
 protected:
  void TearDown() override {
    std::filesystem::remove(errors_path_);
    std::filesystem::remove(text_path_);
  }

  // Runs the program with `arguments` (shell words).
  Outcome Run(const std::string& arguments, const std::string& input = "") const {
    const std::string command = std::string("printf '") + input + "' | " + KVASIR_GENERATE_PROGRAM +
                                " " + arguments + " 2>" + errors_path_;
    FILE* pipe = ::popen(command.c_str(), "r");
    Outcome outcome;
    char buffer[4096];
    size_t bytes = 0;
    while ((bytes = std::fread(buffer, 1, sizeof(buffer), pipe)) > 0)
      outcome.out.append(buffer, bytes);
    const int status = ::pclose(pipe);
    outcome.exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    return outcome;
  }
  Outcome RunModel(const std::string& arguments, const std::string& input = "") const {
    return Run(std::string("--private -m ") + kTinyModel + " " + arguments, input);
  }

  std::string Errors() const {
    std::ifstream in(errors_path_);
    return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
  }

  const std::string errors_path_ =
      ::testing::TempDir() + "kvasir_generate_err_" + std::to_string(::getpid());
  const std::string text_path_ =
      ::testing::TempDir() + "kvasir_generate_text_" + std::to_string(::getpid());
};

TEST_F(GenerateProgram, JsonHasTheNumbers) {
  const Outcome outcome = RunModel("-p 'O Lord GOD: thou art' -n 16 -o json");
  ASSERT_EQ(outcome.exit_code, 0) << Errors();
  const nlohmann::json json = nlohmann::json::parse(outcome.out);
  EXPECT_EQ(json["schema"], 1);
  EXPECT_EQ(json["token_ids"].size(), 16U);
  EXPECT_EQ(json["prompt_tokens"], 9);
  EXPECT_EQ(json["tokens_seen"], 24);
  EXPECT_EQ(json["tokens_kept"], 24);
  EXPECT_EQ(json["held_bytes"], 131072);  // one group of 64 rows of 2 KiB
  EXPECT_GT(json["ms_per_token"].get<double>(), 0.0);
  EXPECT_EQ(json["prefill_token_layers"], 36);  // 9 tokens in 4 layers
  EXPECT_EQ(json["prefill_token_layers_full"], 36);
  EXPECT_FALSE(json.contains("selected_rows"));
  EXPECT_DOUBLE_EQ(json["prefill_rows_per_s"].get<double>(),
                   9000.0 / json["prompt_ms"].get<double>());
}

TEST_F(GenerateProgram, TextAndJsonAgreeAndBothRepeat) {
  const std::string rest = "-p 'In the beginning' -n 20 --temperature 0.8 --top-k 40 --seed 3";
  const Outcome text = RunModel(rest);
  EXPECT_EQ(text.out, RunModel(rest).out);
  const nlohmann::json json = nlohmann::json::parse(RunModel(rest + " -o json").out);
  EXPECT_EQ(text.out, json["text"].get<std::string>() + "\n");
  EXPECT_THAT(Errors(), Not(HasSubstr("prompt:")));
}

TEST_F(GenerateProgram, PromptFromStandardInput) {
  EXPECT_EQ(RunModel("-f - -n 8", "In the beginning").out,
            RunModel("-p 'In the beginning' -n 8").out);
}

TEST_F(GenerateProgram, Perplexity) {
  std::ofstream(text_path_) << "And God said, Let there be light: and there was light.\n";
  const Outcome outcome =
      RunModel("--kv-type f32 --weights f32 -o json --perplexity " + text_path_);
  ASSERT_EQ(outcome.exit_code, 0) << Errors();
  const nlohmann::json json = nlohmann::json::parse(outcome.out);
  EXPECT_GT(json["perplexity"].get<double>(), 1.0);
  EXPECT_LT(json["perplexity"].get<double>(), 100.0);
  EXPECT_EQ(json["tokens_seen"].get<int>(), json["scored_tokens"].get<int>() + 1);
  EXPECT_THAT(RunModel("--perplexity " + text_path_).out, HasSubstr("perplexity: "));
}

TEST_F(GenerateProgram, ProgressOfLongWorkGoesToStandardError) {
  std::string text;
  for (int i = 0; i < 60; ++i) text += "And the king said unto the people. ";
  std::ofstream(text_path_) << text;
  ASSERT_EQ(RunModel("-b 32 -n 4 -f " + text_path_).exit_code, 0);
  EXPECT_THAT(Errors(), HasSubstr("tokens\nprompt: "));
}

// What kvasird reads is tested where it reads; here, that a model without a daemon gives all of it.
TEST_F(GenerateProgram, AProfileHasEveryLayerAndHead) {
  std::string text;
  for (int i = 0; i < 40; ++i) text += "And the king said unto the people, Let us go up. ";
  std::ofstream(text_path_) << text;
  const std::string path = text_path_ + ".json";
  const Outcome outcome = Run(std::string("-m ") + kTinyModel + " --profile --text " + text_path_ +
                              " --tokens 200 --profile-file " + path);
  ASSERT_EQ(outcome.exit_code, 0) << Errors();
  std::ifstream in(path);
  const nlohmann::json json = nlohmann::json::parse(in);
  std::filesystem::remove(path);
  EXPECT_EQ(json["format"], "kvasir-profile-1");
  EXPECT_EQ(json["weights_digest"].get<std::string>().size(), 64U);
  ASSERT_EQ(json["query_weights"].size(), 4U);
  for (const char* rates : {"k_bits", "v_bits"}) {
    ASSERT_EQ(json[rates].size(), 4U);
    double sum = 0;
    for (const nlohmann::json& rate : json[rates]) sum += rate.get<double>();
    EXPECT_NEAR(sum, 0, 4.0 / 128);  // rounded to 1/64 bit
  }
  for (const nlohmann::json& layer : json["query_weights"]) {
    for (const nlohmann::json& head : layer) {
      double sum = 0;
      for (const nlohmann::json& weight : head) sum += weight.get<double>();
      EXPECT_NEAR(sum / static_cast<double>(head.size()), 1.01, 1e-3);
    }
  }
}

TEST_F(GenerateProgram, WrongCommandLinesGiveTwo) {
  EXPECT_EQ(RunModel("--compare").exit_code, 2);
  EXPECT_THAT(Errors(), HasSubstr("--text is required"));
  EXPECT_EQ(RunModel("-p x --text file").exit_code, 2);
  EXPECT_EQ(RunModel("--compare --recommend --text file").exit_code, 2);
  EXPECT_EQ(RunModel("--profile --text file").exit_code, 2);
  EXPECT_EQ(RunModel("-p x --retention full --retention full+int8").exit_code, 2);
  EXPECT_EQ(RunModel("--recommend --text file --bytes 120%").exit_code, 2);
  EXPECT_EQ(RunModel("--recommend --text file --bytes nan").exit_code, 2);
  for (const char* option : {"--json", "--plot"}) {
    EXPECT_EQ(RunModel(std::string("-p x ") + option + " file").exit_code, 2) << option;
    EXPECT_THAT(Errors(), HasSubstr("are for --compare and --recommend")) << option;
  }
  for (const char* option : {"--resume", "--suspend"}) {
    EXPECT_EQ(RunModel(std::string("-p x ") + option + " file").exit_code, 2) << option;
    EXPECT_THAT(Errors(), HasSubstr("need a daemon")) << option;
    EXPECT_EQ(RunModel(std::string("--perplexity x ") + option + " file").exit_code, 2) << option;
    EXPECT_EQ(
        RunModel(std::string("--profile --text x --profile-file y ") + option + " file").exit_code,
        2)
        << option;
  }
  EXPECT_EQ(Run("-p x --chat --system y --resume file -m model").exit_code, 2);
  EXPECT_THAT(Errors(), HasSubstr("--resume takes no --system"));
  EXPECT_EQ(RunModel("--recommend --text file --retention full+int8").exit_code, 2);
  EXPECT_THAT(Errors(), HasSubstr("take no --retention"));
  for (const char* rate : {"0", "-1", "nan", "inf", "1e999", "fast", "12x"}) {
    EXPECT_EQ(Run(std::string("-m x -p x --share --prefill-rows-per-s ") + rate).exit_code, 2);
    EXPECT_THAT(Errors(), HasSubstr("--prefill-rows-per-s: must be a number above 0")) << rate;
  }
  EXPECT_EQ(Run("-m x -p x --prefill-rows-per-s 100").exit_code, 2);
  EXPECT_THAT(Errors(), HasSubstr("--prefill-rows-per-s requires --share"));
  EXPECT_EQ(RunModel("").exit_code, 2);
  EXPECT_THAT(Errors(), HasSubstr("--recommend, --profile is required"));
  EXPECT_EQ(Run("-p x").exit_code, 2);
  EXPECT_EQ(RunModel("-p x --no-such-option").exit_code, 2);
  EXPECT_EQ(RunModel("-p x -n 0").exit_code, 2);
  EXPECT_EQ(RunModel("-p x --weights q8").exit_code, 2);
  EXPECT_EQ(RunModel("-p x --threads 1000").exit_code, 2);
  EXPECT_EQ(RunModel("-p x --perplexity " + text_path_).exit_code, 2);
  EXPECT_EQ(RunModel("--show-selected --perplexity " + text_path_).exit_code, 2);
  EXPECT_EQ(Run("--help").exit_code, 0);
}

TEST_F(GenerateProgram, FailuresGiveOneAndAReason) {
  const auto expect_failure = [this](const Outcome& outcome, const std::string& text) {
    EXPECT_EQ(outcome.exit_code, 1) << text;
    EXPECT_EQ(outcome.out, "") << text;
    EXPECT_THAT(Errors(), HasSubstr(text));
  };
  expect_failure(Run("--private -m /nonexistent.gguf -p x"), "/nonexistent.gguf");
  expect_failure(RunModel("-f /nonexistent.txt"), "path=/nonexistent.txt");
  expect_failure(RunModel("--perplexity /tmp"), "path=/tmp");
  expect_failure(RunModel("-p x -n 3000"), "tokens=3000 context=2048");
  expect_failure(RunModel("-p x -n 30 -c 20"), "context=20");
  std::ofstream(text_path_) << "In the beginning God created the heaven and the earth.";
  expect_failure(RunModel("--compare -c 9 --text " + text_path_), "context=9");
  expect_failure(RunModel("-p x --retention streamingllm"), "retention=streamingllm");
  expect_failure(RunModel("-p x --chat"), "no chat template");
  expect_failure(RunModel("-p x --show-selected --retention full"),
                 "--show-selected needs a retention that selects tokens: retention=full");
  std::ofstream(text_path_) << "GGUF but no more";
  expect_failure(Run("--private -p x -m " + text_path_), "too short");
}

}  // namespace
}  // namespace kvasir::engine::testing
