"""The providers' own clients, set up for the simulator."""

import anthropic
import openai


def openai_sdk(base_url: str) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(
        base_url=base_url,
        api_key="sk-test",
        max_retries=0,
        http_client=openai.DefaultAioHttpClient(),
    )


def anthropic_sdk(base_url: str) -> anthropic.AsyncAnthropic:
    return anthropic.AsyncAnthropic(
        base_url=base_url,
        api_key="sk-ant-test",
        max_retries=0,
        http_client=anthropic.DefaultAioHttpClient(),
    )
